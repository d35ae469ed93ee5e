//! The faults of a run. The seed decides each fault on its own, so that any of them can be left out.

use super::random::{digest, mix};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

macro_rules! sites {
    ($($(#[$doc:meta])* $site:ident = $name:literal, $weight:literal;)*) => {
        /// A place where something can go wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Site { $($(#[$doc])* $site,)* }

        impl Site {
            pub const ALL: &'static [Site] = &[$(Site::$site),*];

            pub fn name(self) -> &'static str {
                match self { $(Site::$site => $name,)* }
            }

            /// Returns how often the fault strikes in a million chances, before the seed changes the weight.
            fn base_weight(self) -> u64 {
                match self { $(Site::$site => $weight,)* }
            }
        }
    };
}

sites! {
    CrashInPoll = "crash in poll", 400;
    CrashBeforeBegin = "crash before the transaction", 1_500;
    CrashAfterLoad = "crash after reading", 1_500;
    CrashBeforeCommit = "crash before commit", 3_000;
    CrashAfterCommit = "crash after commit", 3_000;
    CrashBeforeProduce = "crash before produce", 3_000;
    /// A part of the records is written, and another part may be written later.
    CrashInProduce = "crash in produce", 3_000;
    CrashAfterProduce = "crash after produce, before the ack", 3_000;
    CrashBeforeOffsets = "crash before the offset commit", 2_000;
    CrashAfterOffsets = "crash after the offset commit", 1_000;
    /// SIGSTOP for a while, at any effect. If it is longer than the session, the process becomes a zombie.
    Stall = "stall", 1_200;
    /// A stall between reading and writing a start that is not known yet: a rival may run the whole saga in the
    /// meantime.
    StartHeld = "start held before it is written", 40_000;
    StatementFails = "statement fails", 4_000;
    CommitFails = "commit fails", 8_000;
    CommitAnswerLost = "commit's answer is lost", 8_000;
    /// The server notices late that a client is dead.
    SlowRollback = "late rollback", 300_000;
    ProduceRefused = "produce fails, nothing stands", 8_000;
    ProduceTorn = "produce fails, part stands or comes late", 8_000;
    AckLost = "ack lost", 10_000;
    ProduceSlow = "produce is slow", 10_000;
    /// The partitions of one produce call are written at different times.
    ProduceApart = "produce reordered across partitions", 40_000;
    Duplicate = "message duplicated", 12_000;
    DuplicateElsewhere = "message duplicated into another partition", 4_000;
    /// The first records of a partition arrive late, while all other records are available.
    FirstFetchSlow = "first fetch of a partition is slow", 150_000;
    OffsetCommitLost = "offset commit lost", 40_000;
    OffsetsUnreadable = "offsets unreadable", 20_000;
    GatewayAnswerLost = "gateway's answer lost", 60_000;
    GatewaySlow = "gateway slow", 60_000;
    GatewayRefuses = "gateway refuses for a technical reason", 40_000;
    /// An `error` of an attempt that would succeed at another time, for sagas that are not calm.
    HandlerErrs = "handler errs by chance", 30_000;
    /// A cancellation as soon as the order is accepted, while the saga's first steps are in flight.
    EarlyCancel = "customer cancels at once", 150_000;
    /// The sites from here on are the nemesis's, which gives each a chance twice a second.
    Kill = "process killed", 20_000;
    Terminate = "rolling restart", 6_000;
    Freeze = "process stopped for long", 10_000;
    Rebalance = "rebalance", 15_000;
    Expel = "member expelled unawares", 12_000;
    DatabaseAway = "database away", 8_000;
    BackendsTerminated = "backends terminated", 8_000;
    BrokerAway = "broker away", 6_000;
    ClockJump = "clock jump", 6_000;
    OrchestratorsAway = "orchestrators away for long", 3_000;
    ParticipantAway = "participant away for long", 6_000;
    OffsetsReset = "a group reads a partition again", 6_000;
    TopicReplayed = "a partition's records are sent again", 2_000;
    Cancel = "cancel", 15_000;
    Retry = "retry", 10_000;
    /// Any of the actions, legal or not.
    Meddle = "operator meddles", 15_000;
    StaleFlood = "an old input is sent over and over", 10_000;
    OddStart = "start with an odd id or other content", 8_000;
    Poison = "poison record", 10_000;
    Definitions = "a version is registered, withdrawn or restored", 15_000;
}

/// The identity of one fault within a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FaultKey {
    pub site: Site,
    pub who: String,
    pub number: u64,
}

impl fmt::Display for FaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} #{}", self.site.name(), self.who, self.number)
    }
}

/// The faults of a seed that may happen.
#[derive(Clone, Debug, Default)]
pub enum Allowed {
    #[default]
    All,
    Only(BTreeSet<FaultKey>),
}

/// The faults of a run, and the counts of their chances.
#[derive(Debug)]
pub struct Faults {
    seed: u64,
    allowed: Allowed,
    weights: BTreeMap<Site, u64>,
    chances: BTreeMap<(Site, u64), u64>,
    active: bool,
    injected: Vec<FaultKey>,
}

impl Faults {
    /// Each seed leaves about half of the sites out and makes the others rarer or more frequent, so that each
    /// combination happens eventually (swarm testing: Groce, Zhang, Eide, Chen, Regehr, 2012).
    pub fn new(seed: u64, allowed: Allowed) -> Self {
        let weights = Site::ALL.iter().map(|site| {
            let roll = digest(seed, [b"weight".as_slice(), site.name().as_bytes()]);
            let factor = [0, 0, 0, 1, 1, 4][(roll % 6) as usize];
            (*site, site.base_weight() * factor)
        });
        Self {
            seed,
            allowed,
            weights: weights.collect(),
            chances: BTreeMap::new(),
            active: true,
            injected: Vec::new(),
        }
    }

    /// Returns true if the fault strikes this time.
    pub fn strikes(&mut self, site: Site, who: &str) -> bool {
        if !self.active {
            return false;
        }
        let stream = digest(self.seed, [site.name().as_bytes(), who.as_bytes()]);
        let number = self.chances.entry((site, stream)).or_default();
        *number += 1;
        let number = *number;
        if mix(stream ^ mix(number)) % 1_000_000 >= self.weight(site) {
            return false;
        }
        self.admit(FaultKey {
            site,
            who: who.to_owned(),
            number,
        })
    }

    /// Adds a fault that was decided elsewhere. Returns false if this run leaves it out.
    pub fn admit(&mut self, key: FaultKey) -> bool {
        let admitted = match &self.allowed {
            Allowed::All => true,
            Allowed::Only(keys) => keys.contains(&key),
        };
        if admitted {
            self.injected.push(key);
        }
        admitted
    }

    pub fn weight(&self, site: Site) -> u64 {
        self.weights.get(&site).copied().unwrap_or_default()
    }

    /// Stops all faults from now on.
    pub fn stop(&mut self) {
        self.active = false;
    }

    pub fn is_active(&self) -> bool {
        self.active
    }

    pub fn injected(&self) -> &[FaultKey] {
        &self.injected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the faults of a seed in which acknowledgments are lost.
    fn struck(allowed: &Allowed) -> Vec<FaultKey> {
        for seed in 0..50 {
            let mut faults = Faults::new(seed, allowed.clone());
            for _ in 0..1_000 {
                faults.strikes(Site::AckLost, "somebody");
            }
            if !faults.injected().is_empty() {
                return faults.injected;
            }
        }
        Vec::new()
    }

    #[test]
    fn leaving_one_fault_out_leaves_the_others_where_they_were() {
        let mut all = struck(&Allowed::All);
        assert!(all.len() > 2);
        let out = all.remove(1);
        let rest = struck(&Allowed::Only(all.iter().cloned().collect()));
        assert!(!rest.contains(&out));
        assert_eq!(rest, all);
    }

    #[test]
    fn no_fault_strikes_after_the_stop() {
        let mut faults = Faults::new(1, Allowed::All);
        faults.stop();
        assert!(Site::ALL.iter().all(|site| !faults.strikes(*site, "x")));
    }
}
