//! Calculates which ranges are missing. Pure: the table is read before, and changed after.

use uuid::Uuid;

/// A range of time, and so of ids: from its first millisecond up to, and without, `to_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first millisecond; `None` is the beginning of time.
    pub from_ms: Option<i64>,
    pub to_ms: i64,
}

impl Span {
    /// Returns the span from one instant up to and including another, in whole widths.
    pub fn covering(from_ms: i64, last_ms: i64, width_ms: i64) -> Self {
        Self {
            from_ms: Some(aligned(from_ms, width_ms)),
            to_ms: aligned(last_ms, width_ms) + width_ms,
        }
    }

    fn starts_at(self) -> i64 {
        self.from_ms.unwrap_or(i64::MIN)
    }
}

/// Returns the smallest UUIDv7 of an instant: its milliseconds in the first six bytes, followed by zeros.
pub fn least_id(at_ms: i64) -> Uuid {
    Uuid::from_u128(u128::from(at_ms.max(0).cast_unsigned()) << 80)
}

/// Returns the beginning of the width that contains an instant.
fn aligned(at_ms: i64, width_ms: i64) -> i64 {
    at_ms.max(0) / width_ms * width_ms
}

/// Returns the ranges to create so that `wanted` is covered without a gap, cut at the boundaries of widths. With an
/// open beginning, everything up to the first whole width is one range.
pub(super) fn missing(stand: &[Span], wanted: Span, width_ms: i64) -> Vec<Span> {
    let mut stand = stand.to_vec();
    stand.sort_by_key(|span| span.starts_at());
    let mut pieces = Vec::new();
    let mut at = wanted.from_ms;
    for span in stand {
        let reached = at.unwrap_or(i64::MIN);
        if span.to_ms <= reached || span.starts_at() >= wanted.to_ms {
            continue;
        }
        if span.starts_at() > reached {
            cut(at, span.starts_at(), width_ms, &mut pieces);
        }
        at = Some(span.to_ms);
    }
    cut(at, wanted.to_ms, width_ms, &mut pieces);
    pieces
}

/// Returns up to where the spans reach without a gap.
pub(super) fn reach(stand: &[Span], from_ms: i64) -> i64 {
    let mut stand = stand.to_vec();
    stand.sort_by_key(|span| span.starts_at());
    stand.into_iter().fold(from_ms, |reached, span| {
        if span.starts_at() <= reached {
            reached.max(span.to_ms)
        } else {
            reached
        }
    })
}

fn cut(from_ms: Option<i64>, to_ms: i64, width_ms: i64, pieces: &mut Vec<Span>) {
    let Some(mut at) = from_ms else {
        pieces.push(Span {
            from_ms: None,
            to_ms,
        });
        return;
    };
    while at < to_ms {
        let end = (aligned(at, width_ms) + width_ms).min(to_ms);
        pieces.push(Span {
            from_ms: Some(at),
            to_ms: end,
        });
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(pairs: &[(i64, i64)]) -> Vec<Span> {
        // -1 stands for the beginning of time.
        let span = |(from, to): &(i64, i64)| Span {
            from_ms: (*from >= 0).then_some(*from),
            to_ms: *to,
        };
        pairs.iter().map(span).collect()
    }

    fn check(stand: &[(i64, i64)], wanted: (i64, i64), expected: &[(i64, i64)]) {
        let wanted = spans(&[wanted])[0];
        assert_eq!(
            missing(&spans(stand), wanted, 10),
            spans(expected),
            "{stand:?} in {wanted:?}"
        );
    }

    #[test]
    fn missing_partitions_are_created_in_whole_widths() {
        check(&[], (10, 40), &[(10, 20), (20, 30), (30, 40)]);
        check(&[(10, 20)], (10, 40), &[(20, 30), (30, 40)]);
        check(&[(10, 20), (20, 40)], (10, 40), &[]);
        check(&[(-1, 20)], (10, 30), &[(20, 30)]);
    }

    #[test]
    fn a_gap_is_filled_wherever_it_is() {
        check(&[(10, 20), (30, 40)], (10, 50), &[(20, 30), (40, 50)]);
        check(&[(30, 40)], (10, 40), &[(10, 20), (20, 30)]);
        check(&[(30, 40), (10, 20)], (10, 40), &[(20, 30)]);
        // Partitions of other widths are kept unchanged.
        check(
            &[(10, 14), (33, 37)],
            (10, 40),
            &[(14, 20), (20, 30), (30, 33), (37, 40)],
        );
    }

    #[test]
    fn the_beginning_of_time_is_one_piece() {
        check(&[], (-1, 40), &[(-1, 40)]);
        check(&[(20, 30)], (-1, 40), &[(-1, 20), (30, 40)]);
        check(&[(-1, 20), (20, 30)], (-1, 40), &[(30, 40)]);
    }

    #[test]
    fn partitions_outside_the_range_are_ignored() {
        check(&[(0, 10), (50, 60)], (10, 20), &[(10, 20)]);
        check(&[(-1, 10)], (10, 20), &[(10, 20)]);
    }

    #[test]
    fn room_ends_at_the_first_gap() {
        let stand = spans(&[(-1, 10), (10, 20), (30, 40)]);
        assert_eq!(
            [5, 20, 25, 35].map(|from| reach(&stand, from)),
            [20, 20, 25, 40]
        );
        assert_eq!(reach(&[], 7), 7);
    }

    #[test]
    fn both_ends_are_covered() {
        let span = Span::covering(19, 30, 10);
        assert_eq!(span, spans(&[(10, 40)])[0]);
        assert_eq!(Span::covering(10, 39, 10), span);
    }

    #[test]
    fn the_least_id_of_an_instant_carries_it() {
        let id = least_id(1_790_000_000_000);
        assert_eq!(id.to_string(), "01a0c450-6c00-0000-0000-000000000000");
        let at = |ms: u64| uuid::Builder::from_unix_timestamp_millis(ms, &[0; 10]).into_uuid();
        assert!(at(1_790_000_000_000) >= id && at(1_789_999_999_999) < id);
    }
}
