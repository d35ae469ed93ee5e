use std::{
    fmt::{self, Display},
    io::Write,
};

/// A record's headers, in order. If a name occurs several times, the last value counts. All names share one buffer and
/// all values another, because a record has about fifteen headers and a saga about twenty records.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    names: String,
    values: Vec<u8>,
    /// For each header, the end of its name and the end of its value.
    ends: Vec<(usize, usize)>,
}

/// Initial capacities, enough for an ordinary message.
const HEADERS: usize = 16;
const NAMES_BYTES: usize = 224;
const VALUES_BYTES: usize = 512;

impl Headers {
    /// Returns empty headers with room for an ordinary message.
    pub fn of_message() -> Self {
        Self {
            names: String::with_capacity(NAMES_BYTES),
            values: Vec::with_capacity(VALUES_BYTES),
            ends: Vec::with_capacity(HEADERS),
        }
    }

    pub fn push(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.names.push_str(name);
        self.values.extend_from_slice(value.as_ref());
        self.ends.push((self.names.len(), self.values.len()));
    }

    /// Appends a header whose value is the `Display` text of `value`.
    pub(crate) fn push_shown(&mut self, name: &str, value: impl Display) {
        self.names.push_str(name);
        // Writing to memory cannot fail.
        write!(self.values, "{value}").ok();
        self.ends.push((self.names.len(), self.values.len()));
    }

    /// Returns the last value of a header.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.iter().rev().find(|(found, _)| *found == name)?;
        Some(value)
    }

    /// Removes every header of that name.
    pub fn remove(&mut self, name: &str) {
        *self = self.iter().filter(|(found, _)| *found != name).collect();
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &[u8])> + ExactSizeIterator {
        (0..self.ends.len()).map(|place| {
            let (name_from, value_from) = match place {
                0 => (0, 0),
                _ => self.ends[place - 1],
            };
            let (name_to, value_to) = self.ends[place];
            let name = self.names.get(name_from..name_to).unwrap_or_default();
            (name, &self.values[value_from..value_to])
        })
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Extend<(N, V)> for Headers {
    fn extend<I: IntoIterator<Item = (N, V)>>(&mut self, headers: I) {
        for (name, value) in headers {
            self.push(name.as_ref(), value);
        }
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        let mut all = Self::default();
        all.extend(headers);
        all
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>, const COUNT: usize> From<[(N, V); COUNT]> for Headers {
    fn from(headers: [(N, V); COUNT]) -> Self {
        headers.into_iter().collect()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |(name, value)| (name, String::from_utf8_lossy(value));
        f.debug_list().entries(self.iter().map(text)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Headers {
        Headers::from([("a", "1"), ("", ""), ("b", "2"), ("a", "3")])
    }

    #[test]
    fn headers_keep_their_order_and_the_last_of_a_name_counts() {
        let all: Vec<_> = some()
            .iter()
            .map(|(n, v)| (n.to_owned(), v.to_vec()))
            .collect();
        assert_eq!(all.iter().cloned().collect::<Headers>(), some());
        assert_eq!(all[2], ("b".to_owned(), b"2".to_vec()));
        assert_eq!(some().get("a"), Some(&b"3"[..]));
        assert_eq!(some().get(""), Some(&b""[..]));
        assert_eq!(some().get("c"), None);
        assert_eq!(some().iter().next_back(), Some(("a", &b"3"[..])));
    }

    #[test]
    fn a_name_is_removed_at_every_position() {
        let mut headers = some();
        headers.remove("a");
        assert_eq!(headers, Headers::from([("", ""), ("b", "2")]));
        headers.push_shown("n", 7);
        assert_eq!(headers.len(), 3);
        assert_eq!(headers.get("n"), Some(&b"7"[..]));
    }

    #[test]
    fn the_same_text_in_other_places_is_not_the_same() {
        assert_ne!(Headers::from([("ab", "c")]), Headers::from([("a", "c")]));
        assert_ne!(
            Headers::from([("a", "x"), ("b", "y")]),
            Headers::from([("ab", "xy")])
        );
    }
}
