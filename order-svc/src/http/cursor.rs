//! The opaque cursor of a listing: the id of the last order shown, and a hash of that id and the filter, so that a
//! cursor is valid only for the listing that it came from.

use crate::{domain::order::parse_id, store::order::Filter};
use sha2::{Digest, Sha256};
use uuid::Uuid;

const SEAL_BYTES: usize = 4;
const ID_CHARS: usize = 32;

pub fn encode(last: Uuid, filter: Filter) -> String {
    let seal = seal(last, filter);
    format!("{}{seal:08x}", last.simple())
}

/// Returns the order after which the next page begins, or `None` if the cursor is not valid for `filter`.
pub fn decode(text: &str, filter: Filter) -> Option<Uuid> {
    if !text.is_ascii() || text.len() != ID_CHARS + 2 * SEAL_BYTES {
        return None;
    }
    let (id, sealed) = text.split_at(ID_CHARS);
    let last = Uuid::try_parse(id).ok()?;
    let last = parse_id(&last.to_string())?;
    (sealed == format!("{:08x}", seal(last, filter))).then_some(last)
}

fn seal(last: Uuid, filter: Filter) -> u32 {
    let status = filter.status.map_or("", |status| status.as_str());
    let customer = filter.customer_id.unwrap_or_default();
    let mut hash = Sha256::new();
    hash.update(last.as_bytes());
    hash.update(customer.as_bytes());
    hash.update(status);
    let digest: [u8; 32] = hash.finalize().into();
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::order::OrderStatus;

    #[test]
    fn a_cursor_is_good_for_its_own_listing_only() {
        let last = Uuid::from_u128(9);
        let all = Filter::default();
        let pending = Filter {
            status: Some(OrderStatus::Pending),
            ..all
        };
        let cursor = encode(last, all);
        assert_eq!(decode(&cursor, all), Some(last));
        assert_eq!(decode(&cursor, pending), None);
        let (id, seal) = cursor.split_at(ID_CHARS);
        let forged = format!("{}{seal}", Uuid::from_u128(8).simple());
        for wrong in [
            forged.as_str(),
            "",
            "x",
            id,
            &"ä".repeat(20),
            &"0".repeat(40),
        ] {
            assert_eq!(decode(wrong, all), None, "{wrong}");
        }
    }
}
