//! How copies of a few sagas fill days. Pure.
//!
//! ```text
//!  templates: ▒                                              first … last ▒▒▒▒ now
//!  copies:    ▒▒▒▒  ▒▒▒▒  ▒▒▒▒  ▒▒▒▒  ▒▒▒▒  …  ▒▒▒▒  ▒▒▒▒                      │
//!             0     1     2                       n                           │
//!             │◀──────────────────── days ───────────────▶│◀──── gap ────────▶│
//! ```

use super::template::Change;
use saga_harness::random::Random;

const DAY_S: i64 = 24 * 3_600;
/// The time between the last copy and the templates: longer than the template orders took.
const GAP_S: i64 = 3_600;
/// How many copies of an order are placed by the same customer.
const ORDERS_A_CUSTOMER: u64 = 16;

/// The distribution of the copies over the days. A saga of history is identified by its number, in the order of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    pub sagas: u64,
    pub templates: u64,
    pub days: i64,
    pub seed: u64,
}

impl Spread {
    /// Returns the number of the template from which a saga is copied.
    pub fn template(&self, saga: u64) -> usize {
        (saga % self.templates) as usize
    }

    pub fn change(&self, saga: u64) -> Change {
        let copy = saga / self.templates;
        let copies = self.sagas.div_ceil(self.templates).max(1);
        let room_s = self.days * DAY_S - GAP_S;
        let passed = i128::from(room_s) * i128::from(copy) / i128::from(copies);
        let mask = |purpose, number: u64| {
            Random::new(self.seed.wrapping_add(number), purpose).below(u64::MAX)
        };
        Change {
            shift_s: passed as i64 - self.days * DAY_S,
            mask: mask("ids", copy),
            customer_mask: mask("customers", copy / ORDERS_A_CUSTOMER),
        }
    }

    /// Returns `count` sagas, evenly spaced over all of history.
    pub fn sample(&self, count: u64) -> impl Iterator<Item = u64> {
        let count = count.min(self.sagas);
        let sagas = self.sagas;
        (0..count)
            .map(move |number| (u128::from(sagas) * u128::from(number) / u128::from(count)) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use uuid::Uuid;

    const SPREAD: Spread = Spread {
        sagas: 10_001,
        templates: 100,
        days: 21,
        seed: 1,
    };
    const BEGAN_MS: u64 = 1_795_075_200_000;

    fn ids(spread: &Spread) -> Vec<Uuid> {
        let template = |n: u64| {
            uuid::Builder::from_unix_timestamp_millis(BEGAN_MS + n, &[n as u8; 10]).into_uuid()
        };
        (0..spread.sagas)
            .map(|saga| {
                spread
                    .change(saga)
                    .timed(template(spread.template(saga) as u64))
            })
            .collect()
    }

    #[test]
    fn every_saga_has_an_id_of_its_own_and_they_ascend() {
        let all = ids(&SPREAD);
        assert_eq!(
            all.iter().collect::<BTreeSet<_>>().len() as u64,
            SPREAD.sagas
        );
        assert!(all.is_sorted());
    }

    #[test]
    fn history_fills_its_days_evenly_and_ends_before_the_templates() {
        let days_before = |saga| -SPREAD.change(saga).shift_s as f64 / DAY_S as f64;
        assert!((days_before(0) - 21.0).abs() < 1e-9);
        assert!((days_before(5_000) - 10.5).abs() < 0.2);
        let last = SPREAD.change(SPREAD.sagas - 1).shift_s;
        assert!((-DAY_S..=-GAP_S).contains(&last), "{last}");
    }

    #[test]
    fn ids_are_unique_with_more_sagas_than_seconds() {
        let dense = Spread {
            templates: 1,
            days: 1,
            sagas: 200_000,
            ..SPREAD
        };
        let all: BTreeSet<Uuid> = ids(&dense).into_iter().collect();
        assert_eq!(all.len() as u64, dense.sagas);
    }

    #[test]
    fn customers_order_a_few_times() {
        let mask = |copy: u64| SPREAD.change(copy * SPREAD.templates).customer_mask;
        assert_eq!(mask(0), mask(ORDERS_A_CUSTOMER - 1));
        assert_ne!(mask(0), mask(ORDERS_A_CUSTOMER));
    }

    #[test]
    fn a_sample_is_of_all_of_history() {
        let sample: Vec<u64> = SPREAD.sample(4).collect();
        assert_eq!(sample, [0, 2_500, 5_000, 7_500]);
        let few = Spread { sagas: 2, ..SPREAD };
        assert_eq!(few.sample(20).collect::<Vec<_>>(), [0, 1]);
    }
}
