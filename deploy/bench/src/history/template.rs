//! The rows of an ended saga as templates, from which copies are made. Pure.
//!
//! A row is read as Postgres writes it (`COPY … TO`), whatever its table and its columns are. The parts that belong to
//! this saga alone are found in the text, both in columns and in documents: ids, and instants.
//!
//! ```text
//!  0199a1f0-…-8d51 ⇥ CONFIRMED ⇥ {"at": "2026-11-19T08:00:01.250Z", …}      a row
//!  └─ id ────────┘└─ text ─────────────┘└─ instant ───────┘└─ text ─┘      its parts
//!    moved, masked                        moved                             in a copy
//! ```
//!
//! Copies are moved by whole seconds, so fractions and time zones stay as they are written. A time before the
//! templates' first instant does not belong to the templates, and is not changed.

use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};
use std::collections::BTreeSet;
use uuid::{Uuid, fmt::Hyphenated};

/// The values by which ids and instants of templates are recognized.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The time of the first template. Older times do not belong to the templates.
    pub began_ms: i64,
    /// The ids of customers. The customer of a copy places several orders.
    pub customers: BTreeSet<Uuid>,
    /// The ids that all copies have in common: products.
    pub shared: BTreeSet<Uuid>,
}

/// The difference of a copy from its template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub shift_s: i64,
    /// The mask that is applied to ids. It makes the ids of one copy differ from those of all other copies.
    pub mask: u64,
    pub customer_mask: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    /// A UUIDv7 whose milliseconds belong to the templates.
    TimedId(Uuid),
    OtherId(Uuid),
    Customer(Uuid),
    /// Seconds since the Unix epoch, and the character between date and time.
    Instant(i64, u8),
    Milliseconds(i64),
}

/// A row as a sequence of fixed text and of parts that differ in each copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

const ID_BYTES: usize = Hyphenated::LENGTH;
const INSTANT_BYTES: usize = "2026-11-19T08:00:01".len();
/// The length of this century's milliseconds since the Unix epoch.
const MILLISECONDS_BYTES: usize = "1790000000000".len();
/// How far instants may be after the first template: deadlines are later, but less than this.
const AHEAD_MAX_MS: i64 = 400 * 24 * 3_600 * 1_000;
/// All bits of a UUID that hold neither time, version nor variant, except twelve.
const MASK: u64 = (1 << 62) - 1;

impl Template {
    pub fn read(row: &[u8], known: &Known) -> Self {
        let mut parts = Vec::new();
        let mut text = Vec::new();
        let mut at = 0;
        while at < row.len() {
            let is_inside = at > 0 && row[at - 1].is_ascii_alphanumeric();
            let found = if is_inside {
                None
            } else {
                known.part(&row[at..])
            };
            let Some((part, length)) = found else {
                text.push(row[at]);
                at += 1;
                continue;
            };
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(part);
            at += length;
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Self(parts)
    }

    pub fn write(&self, change: &Change, into: &mut Vec<u8>) {
        for part in &self.0 {
            match part {
                Part::Text(text) => into.extend_from_slice(text),
                Part::TimedId(id) => write_id(change.timed(*id), into),
                Part::OtherId(id) => write_id(masked(*id, change.mask), into),
                Part::Customer(id) => write_id(masked(*id, change.customer_mask), into),
                Part::Instant(at_s, between) => {
                    write_instant(at_s + change.shift_s, *between, into);
                }
                Part::Milliseconds(at_ms) => {
                    let moved = at_ms + change.shift_s * 1_000;
                    into.extend_from_slice(moved.to_string().as_bytes());
                }
            }
        }
    }
}

impl Change {
    /// Returns the copy's id for a template's UUIDv7.
    pub fn timed(&self, id: Uuid) -> Uuid {
        let shift = i128::from(self.shift_s) * 1_000;
        let moved = id.as_u128().wrapping_add_signed(shift << 80);
        masked(Uuid::from_u128(moved), self.mask)
    }
}

impl Known {
    /// Returns the part at the beginning of the text, and its length.
    fn part(&self, text: &[u8]) -> Option<(Part, usize)> {
        if !text.first()?.is_ascii_hexdigit() {
            return None;
        }
        self.id(text)
            .map(|part| (part, ID_BYTES))
            .or_else(|| Some((self.instant(text)?, INSTANT_BYTES)))
            .or_else(|| Some((self.milliseconds(text)?, MILLISECONDS_BYTES)))
    }

    fn id(&self, text: &[u8]) -> Option<Part> {
        let id = id_at(text)?;
        if self.shared.contains(&id) {
            return None;
        }
        if self.customers.contains(&id) {
            return Some(Part::Customer(id));
        }
        let at_ms = (id.as_u128() >> 80) as i64;
        let timed = id.get_version_num() == 7 && self.is_of_theirs(at_ms);
        Some(if timed {
            Part::TimedId(id)
        } else {
            Part::OtherId(id)
        })
    }

    fn instant(&self, text: &[u8]) -> Option<Part> {
        let (date_time, behind) = text.split_at_checked(INSTANT_BYTES)?;
        let between = date_time[10];
        let format = match between {
            b'T' => "%Y-%m-%dT%H:%M:%S",
            b' ' => "%Y-%m-%d %H:%M:%S",
            _ => return None,
        };
        if behind.first().is_some_and(u8::is_ascii_digit) {
            return None;
        }
        let date_time = std::str::from_utf8(date_time).ok()?;
        let at = NaiveDateTime::parse_from_str(date_time, format).ok()?;
        let at_s = at.and_utc().timestamp();
        // The text may go on with a fraction of the same second.
        self.is_of_theirs((at_s + 1) * 1_000)
            .then_some(Part::Instant(at_s, between))
    }

    fn milliseconds(&self, text: &[u8]) -> Option<Part> {
        let (digits, behind) = text.split_at_checked(MILLISECONDS_BYTES)?;
        let whole = digits.iter().all(u8::is_ascii_digit)
            && !behind.first().is_some_and(u8::is_ascii_alphanumeric);
        if !whole {
            return None;
        }
        let at_ms = std::str::from_utf8(digits).ok()?.parse().ok()?;
        self.is_of_theirs(at_ms)
            .then_some(Part::Milliseconds(at_ms))
    }

    fn is_of_theirs(&self, at_ms: i64) -> bool {
        (self.began_ms..self.began_ms + AHEAD_MAX_MS).contains(&at_ms)
    }
}

/// Returns every id in a row, wherever it is.
pub fn ids(row: &[u8]) -> impl Iterator<Item = Uuid> {
    (0..row.len()).filter_map(|at| id_at(&row[at..]))
}

/// Parses an id only in lower case, as Postgres and the services write it, so that it is written back unchanged.
fn id_at(text: &[u8]) -> Option<Uuid> {
    let text = text.get(..ID_BYTES)?;
    if text[8] != b'-' || text.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    Uuid::try_parse_ascii(text).ok()
}

fn masked(id: Uuid, mask: u64) -> Uuid {
    Uuid::from_u128(id.as_u128() ^ u128::from(mask & MASK))
}

fn write_id(id: Uuid, into: &mut Vec<u8>) {
    let mut text = [0; ID_BYTES];
    into.extend_from_slice(id.hyphenated().encode_lower(&mut text).as_bytes());
}

fn write_instant(at_s: i64, between: u8, into: &mut Vec<u8>) {
    let at = DateTime::from_timestamp_secs(at_s).unwrap_or_default();
    let mut number = |value: u32, digits: u32, behind: Option<u8>| {
        for place in (0..digits).rev() {
            into.push(b'0' + (value / 10_u32.pow(place) % 10) as u8);
        }
        into.extend(behind);
    };
    number(at.year().unsigned_abs(), 4, Some(b'-'));
    number(at.month(), 2, Some(b'-'));
    number(at.day(), 2, Some(between));
    number(at.hour(), 2, Some(b':'));
    number(at.minute(), 2, Some(b':'));
    number(at.second(), 2, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-19T08:00:00Z.
    const BEGAN_MS: i64 = 1_795_075_200_000;
    const DAY_S: i64 = 24 * 3_600;

    fn id(at_ms: i64, random: u8) -> Uuid {
        uuid::Builder::from_unix_timestamp_millis(at_ms.unsigned_abs(), &[random; 10]).into_uuid()
    }

    fn copied(row: &str, known: &Known, change: Change) -> String {
        let mut text = Vec::new();
        Template::read(row.as_bytes(), known).write(&change, &mut text);
        String::from_utf8(text).expect("text")
    }

    fn known() -> Known {
        Known {
            began_ms: BEGAN_MS,
            ..Known::default()
        }
    }

    const NOTHING: Change = Change {
        shift_s: 0,
        mask: 0,
        customer_mask: 0,
    };

    fn days_ago(days: i64) -> Change {
        Change {
            shift_s: -days * DAY_S,
            mask: 0b101,
            customer_mask: 0b11,
        }
    }

    #[test]
    fn unchanged_values_are_copied_verbatim() {
        let saga = id(BEGAN_MS + 5, 7);
        for row in [
            format!("{saga}\tCONFIRMED\t2026-11-19 08:00:01.25+00\t{{\"at\": 1795075200123}}"),
            "ä\\\\n\t\\N\t\\\\x0102 2026-11-19".to_owned(),
            String::new(),
        ] {
            assert_eq!(copied(&row, &known(), NOTHING), row);
        }
    }

    #[test]
    fn a_copy_is_moved_in_columns_and_in_documents() {
        let check = |row: &str, expected: &str| {
            assert_eq!(copied(row, &known(), days_ago(3)), expected, "{row}");
        };
        check("2026-11-19 08:00:01.25+00", "2026-11-16 08:00:01.25+00");
        check(
            r#"{"at":"2026-11-19T08:00:01Z"}"#,
            r#"{"at":"2026-11-16T08:00:01Z"}"#,
        );
        check(r#"{"at":1795075200123}"#, r#"{"at":1794816000123}"#);
        // A deadline one day later.
        check("2026-11-20T08:00:09.5Z", "2026-11-17T08:00:09.5Z");
        // Amounts, times of other things, and parts of longer numbers are not changed.
        for same in [
            "2020-01-01 00:00:00+00",
            "1050",
            "17950752001234",
            "x1795075200123",
            "1600000000000",
        ] {
            check(same, same);
        }
    }

    #[test]
    fn an_id_is_moved_with_its_saga_and_is_another_one() {
        let saga = id(BEGAN_MS + 5, 7);
        let change = days_ago(2);
        let expected = masked(id(BEGAN_MS + 5 - 2 * DAY_S * 1_000, 7), 0b101);
        assert_eq!(change.timed(saga), expected);
        assert_eq!(expected.get_version_num(), 7);
        let row = format!("{saga}/create-order/F\t\"{saga}\"");
        let copy = copied(&row, &known(), change);
        assert_eq!(copy, format!("{expected}/create-order/F\t\"{expected}\""));
    }

    #[test]
    fn customer_product_and_other_ids_are_masked_differently() {
        let [customer, product, other] = [3, 4, 5].map(|n| Uuid::from_u128(n << 100 | 0x80 << 56));
        let known = Known {
            customers: [customer].into(),
            shared: [product].into(),
            ..known()
        };
        let row = format!("{customer} {product} {other}");
        let expected = format!(
            "{} {product} {}",
            masked(customer, 0b11),
            masked(other, 0b101)
        );
        assert_eq!(copied(&row, &known, days_ago(1)), expected);
    }

    #[test]
    fn the_ids_of_a_row_are_found_at_every_position() {
        let [a, b] = [1, 2].map(|n| id(BEGAN_MS, n));
        let row = format!("{a}\t{{\"caller\": \"{b}/charge/F\"}}");
        assert_eq!(ids(row.as_bytes()).collect::<Vec<_>>(), [a, b]);
    }
}
