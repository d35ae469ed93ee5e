//! Checks the page size of listings.

use super::{FieldError, Problem};

/// Returns the number of entries of a page: the requested number, which must be from 1 to `max`, or `default`.
pub fn page_limit(asked: Option<u32>, default: u32, max: u32) -> Result<u32, Problem> {
    match asked {
        None => Ok(default),
        Some(limit) if (1..=max).contains(&limit) => Ok(limit),
        Some(_) => Err(Problem::invalid_parameter(FieldError::new(
            "limit",
            format!("must be from 1 to {max}"),
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_as_many_entries_as_asked_for_within_bounds() {
        for (asked, limit) in [(None, Some(20)), (Some(1), Some(1)), (Some(100), Some(100))] {
            assert_eq!(page_limit(asked, 20, 100).ok(), limit);
        }
        for asked in [0, 101] {
            let problem = page_limit(Some(asked), 20, 100).expect_err("out of bounds");
            assert_eq!((problem.status, problem.errors.len()), (400, 1));
            assert_eq!(problem.detail, "limit: must be from 1 to 100");
        }
    }
}
