//! Decides where a group continues in a partition, from the state of its database, its offsets and the log. No I/O.

use crate::kafka::Committed;

/// The database's note on a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotedOffset {
    /// All records below this offset are handled in this database.
    pub next_offset: i64,
    /// The id of the topic that the offset belongs to; empty if it is unknown.
    pub topic_id: String,
}

/// The log's state of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartitionState {
    pub committed: Committed,
    pub topic_id: String,
    /// The offset of the next record to be written.
    pub end: i64,
}

/// The decision about a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OffsetDecision {
    /// Everything is consistent: the group continues at its committed offset.
    Fits,
    /// The database is older than the committed offset: the group goes back to the offset that the database noted.
    Restored { from: i64, to: i64 },
    /// The log is the one that the database knows, and the group's offset is gone.
    Forgotten { to: i64 },
    /// The log was replaced. The group starts at its beginning, unless it has begun there already.
    Recreated { consumed: i64, has_begun: bool },
}

/// Decides about one partition. `is_older`: the database is older than the offsets of its group.
pub(super) fn decide_offset(
    known: Option<&NotedOffset>,
    state: &PartitionState,
    is_older: bool,
) -> OffsetDecision {
    // Without topic ids, an offset beyond the end shows that the log was replaced. With ids the end is not used,
    // because a new leader's end may lag for a moment.
    let is_another = |id: &str, offset: i64| {
        if id.is_empty() || state.topic_id.is_empty() {
            offset > state.end
        } else {
            id != state.topic_id
        }
    };
    let committed = state.committed.offset;
    let marked = state.committed.mark.as_ref();
    let marked_id = marked.map_or("", |mark| mark.topic_id.as_str());
    let is_of_another = committed.is_some_and(|offset| is_another(marked_id, offset));
    let position = known.map_or(0, |known| known.next_offset);
    let knew_another = known.is_some_and(|known| is_another(&known.topic_id, known.next_offset));
    if is_of_another || knew_another {
        let has_begun = committed.is_some() && !is_of_another;
        return OffsetDecision::Recreated {
            consumed: position.max(if has_begun { 0 } else { committed.unwrap_or(0) }),
            has_begun,
        };
    }
    match committed {
        Some(from) if is_older && from > position => {
            OffsetDecision::Restored { from, to: position }
        }
        None if position > 0 => OffsetDecision::Forgotten { to: position },
        Some(_) | None => OffsetDecision::Fits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Mark;
    use uuid::Uuid;

    const END: i64 = 100;

    fn check(
        known: Option<(i64, &str)>,
        committed: Option<(i64, &str)>,
        is_older: bool,
        expected: OffsetDecision,
    ) {
        let known = known.map(|(next_offset, id)| NotedOffset {
            next_offset,
            topic_id: id.to_owned(),
        });
        let state = PartitionState {
            committed: Committed {
                offset: committed.map(|(offset, _)| offset),
                mark: committed.map(|(_, id)| Mark {
                    database: Uuid::nil(),
                    tick: 0,
                    topic_id: id.to_owned(),
                }),
            },
            topic_id: "now".to_owned(),
            end: END,
        };
        let found = decide_offset(known.as_ref(), &state, is_older);
        assert_eq!(found, expected, "{known:?} {state:?} {is_older}");
    }

    #[test]
    fn a_group_continues_at_its_committed_offset() {
        check(None, None, false, OffsetDecision::Fits);
        check(None, Some((7, "now")), false, OffsetDecision::Fits);
        check(
            Some((7, "now")),
            Some((9, "now")),
            false,
            OffsetDecision::Fits,
        );
        check(Some((0, "now")), None, false, OffsetDecision::Fits);
        // The offset was set back by hand, or a broker without topic ids was used.
        check(Some((7, "now")), Some((3, "")), true, OffsetDecision::Fits);
        check(
            Some((END, "")),
            Some((END, "")),
            false,
            OffsetDecision::Fits,
        );
        // The end of a new leader lags.
        check(
            Some((101, "now")),
            Some((101, "now")),
            false,
            OffsetDecision::Fits,
        );
    }

    #[test]
    fn an_older_database_takes_its_group_back_to_where_it_stood() {
        let back = |to| OffsetDecision::Restored { from: 9, to };
        check(Some((7, "now")), Some((9, "now")), true, back(7));
        // The partition was added after the backup.
        check(None, Some((9, "now")), true, back(0));
        check(
            Some((9, "now")),
            Some((9, "now")),
            true,
            OffsetDecision::Fits,
        );
    }

    #[test]
    fn offsets_that_are_gone_are_known_to_the_database() {
        check(
            Some((7, "now")),
            None,
            false,
            OffsetDecision::Forgotten { to: 7 },
        );
        check(
            Some((7, "now")),
            None,
            true,
            OffsetDecision::Forgotten { to: 7 },
        );
    }

    #[test]
    fn another_log_is_read_from_its_beginning_once() {
        let recreated = |consumed, has_begun| OffsetDecision::Recreated {
            consumed,
            has_begun,
        };
        // Deleting a topic deletes the group's offsets in it.
        check(Some((7, "then")), None, false, recreated(7, false));
        // A consumer that did not notice the replacement has committed in the new topic.
        check(
            Some((7, "then")),
            Some((9, "then")),
            false,
            recreated(9, false),
        );
        check(
            Some((7, "then")),
            Some((3, "now")),
            false,
            recreated(7, true),
        );
        check(
            Some((7, "then")),
            Some((9, "then")),
            true,
            recreated(9, false),
        );
        // Without ids, the end shows the replacement.
        check(Some((101, "")), None, false, recreated(101, false));
        check(
            Some((101, "")),
            Some((101, "")),
            false,
            recreated(101, false),
        );
        check(Some((101, "")), Some((3, "")), false, recreated(101, true));
    }
}
