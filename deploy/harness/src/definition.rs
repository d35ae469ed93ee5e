//! Edited variants of the shipped definitions.

/// Returns the definition with these replacements applied.
///
/// Panics unless each replaced text occurs exactly once. Otherwise a definition that has changed in the meantime would
/// be used as it is shipped, and nobody would notice.
pub fn edited(shipped: &str, edits: &[(&str, &str)]) -> String {
    edits.iter().fold(shipped.to_owned(), |text, (from, to)| {
        assert_eq!(text.matches(from).count(), 1, "{from:?} in:\n{text}");
        text.replace(from, to)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    #[test]
    fn an_edit_that_does_not_fit_in_one_place_is_refused() {
        let shipped = "name: order\nretry: 1\nretry: 1\n";
        let edits = [("name: order", "name: other"), ("order", "other")];
        assert_eq!(
            edited(shipped, &edits[..1]),
            "name: other\nretry: 1\nretry: 1\n"
        );
        // The first edit has removed the text that the second edit looks for.
        catch_unwind(|| edited(shipped, &edits)).expect_err("it fits nowhere");
        catch_unwind(|| edited(shipped, &[("retry: 1", "retry: 2")])).expect_err("it fits twice");
    }
}
