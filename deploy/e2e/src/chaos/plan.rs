//! Which faults happen when: a pure function of the seed.
//!
//! Faults overlap, since what is hurt twice at once is where systems break. Around a takeover nothing else happens: how
//! long the other copy needs can only be measured when it is the only thing that is wrong.

use super::random::Random;
use crate::Service;
use clap::ValueEnum;
use std::{fmt, time::Duration};

/// Kinds of faults, as figures count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    Takeover,
    Kill,
    Freeze,
    Rebalance,
    RollingRestart,
    BrokerRestart,
    BrokerKill,
    BrokerPause,
    PostgresRestart,
    PostgresPause,
    TerminateBackends,
    Cut,
    Latency,
    Poison,
    Replay,
}

impl Kind {
    pub const ALL: [Self; 15] = [
        Self::Takeover,
        Self::Kill,
        Self::Freeze,
        Self::Rebalance,
        Self::RollingRestart,
        Self::BrokerRestart,
        Self::BrokerKill,
        Self::BrokerPause,
        Self::PostgresRestart,
        Self::PostgresPause,
        Self::TerminateBackends,
        Self::Cut,
        Self::Latency,
        Self::Poison,
        Self::Replay,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Takeover => "takeover",
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Rebalance => "rebalance",
            Self::RollingRestart => "rolling-restart",
            Self::BrokerRestart => "broker-restart",
            Self::BrokerKill => "broker-kill",
            Self::BrokerPause => "broker-pause",
            Self::PostgresRestart => "postgres-restart",
            Self::PostgresPause => "postgres-pause",
            Self::TerminateBackends => "terminate-backends",
            Self::Cut => "cut",
            Self::Latency => "latency",
            Self::Poison => "poison",
            Self::Replay => "replay",
        }
    }

    /// How often, against the others.
    fn weight(self) -> u64 {
        match self {
            Self::Kill => 14,
            Self::Freeze | Self::Cut | Self::Replay => 12,
            Self::Latency => 8,
            Self::Takeover | Self::TerminateBackends => 7,
            Self::Rebalance | Self::Poison => 6,
            Self::PostgresRestart => 4,
            Self::BrokerRestart | Self::BrokerKill | Self::BrokerPause | Self::PostgresPause => 3,
            Self::RollingRestart => 2,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One of the two processes of a service; a third joins now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Copy {
    pub service: Service,
    pub number: usize,
}

/// Processes of each service.
pub const COPIES: usize = 2;

impl Copy {
    pub fn all() -> Vec<Self> {
        let of = |service| (0..COPIES).map(move |number| Self { service, number });
        Service::ALL.into_iter().flat_map(of).collect()
    }
}

impl fmt::Display for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.service.name(), self.number)
    }
}

/// A connection between two parts, which a proxy stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    Postgres(Copy),
    Kafka(Copy),
    /// From the clients to a copy of order-svc.
    Orders(usize),
    /// From a copy of order-svc to the orchestrator's HTTP.
    Sagas(usize),
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(copy) => write!(f, "{copy} ⇄ postgres"),
            Self::Kafka(copy) => write!(f, "{copy} ⇄ kafka"),
            Self::Orders(number) => write!(f, "clients ⇄ order-svc-{number}"),
            Self::Sagas(number) => write!(f, "order-svc-{number} ⇄ orchestrator"),
        }
    }
}

/// What exactly is done, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; started again after the fault's time.
    Kill(Copy),
    /// SIGSTOP, and SIGCONT after the fault's time: longer than a session, it wakes up as a zombie.
    Freeze(Copy),
    /// Another copy joins, and leaves in order.
    Rebalance(Service),
    /// Every process in turn: SIGTERM, and started again.
    RollingRestart,
    BrokerRestart,
    BrokerKill,
    BrokerPause,
    /// Immediate mode: no session is asked, nothing is written out.
    PostgresRestart,
    PostgresPause,
    /// All sessions of all services, again and again.
    TerminateBackends,
    /// Connections are reset, or silent: nothing arrives and nobody is told.
    Cut {
        link: Link,
        silent: bool,
    },
    Latency {
        link: Link,
        delay: Duration,
    },
    /// One bad record in every topic.
    Poison {
        form: u64,
    },
    /// A range of a topic is sent again.
    Replay {
        topic: usize,
        place: u64,
    },
}

/// A fault with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    pub at: Duration,
    pub lasts: Duration,
    pub kind: Kind,
    pub fault: Fault,
}

/// Before a takeover everything must run, and after it for as long as it may take, with room to see it.
const CALM_BEFORE: Duration = Duration::from_secs(8);
const CALM_AFTER: Duration = Duration::from_secs(16);
const GAP_LEAST: Duration = Duration::from_millis(500);
const GAP_MOST: Duration = Duration::from_secs(5);
/// The first fault comes when there are orders.
const LEAD: Duration = Duration::from_secs(5);

/// The faults of a run, in order of their beginning.
pub fn plan(seed: u64, length: Duration, kinds: &[Kind]) -> Vec<Planned> {
    let mut random = Random::new(seed, "plan");
    let weights: Vec<(u64, Kind)> = kinds.iter().map(|kind| (kind.weight(), *kind)).collect();
    let mut plan: Vec<Planned> = Vec::new();
    let mut at = LEAD;
    loop {
        let Some(kind) = random.weighted(&weights) else {
            return plan;
        };
        let calm = kind == Kind::Takeover;
        if calm {
            let busy_until = plan.iter().map(|planned| planned.at + planned.lasts).max();
            at = at.max(busy_until.unwrap_or_default() + CALM_BEFORE);
        }
        let (fault, least, most) = choose(kind, &mut random);
        let lasts = random.between(least, most);
        if at + lasts > length {
            return plan;
        }
        plan.push(Planned {
            at,
            lasts,
            kind,
            fault,
        });
        at += if calm {
            CALM_AFTER
        } else {
            random.between(GAP_LEAST, GAP_MOST)
        };
    }
}

/// The fault, and how long it lasts at least and at most.
fn choose(kind: Kind, random: &mut Random) -> (Fault, Duration, Duration) {
    let ms = Duration::from_millis;
    let copy = *random.pick(&Copy::all());
    match kind {
        Kind::Takeover => {
            let service = Service::Orchestrator;
            let number = random.below(COPIES as u64) as usize;
            let fault = Fault::Kill(Copy { service, number });
            // The dead one stays away, so that it is the other that takes over.
            (fault, ms(14_000), ms(14_000))
        }
        Kind::Kill => (Fault::Kill(copy), ms(0), ms(9_000)),
        Kind::Freeze => (Fault::Freeze(copy), ms(500), ms(15_000)),
        Kind::Rebalance => (Fault::Rebalance(copy.service), ms(4_000), ms(10_000)),
        Kind::RollingRestart => (Fault::RollingRestart, ms(0), ms(0)),
        Kind::BrokerRestart => (Fault::BrokerRestart, ms(0), ms(6_000)),
        Kind::BrokerKill => (Fault::BrokerKill, ms(0), ms(6_000)),
        Kind::BrokerPause => (Fault::BrokerPause, ms(1_000), ms(12_000)),
        Kind::PostgresRestart => (Fault::PostgresRestart, ms(0), ms(5_000)),
        Kind::PostgresPause => (Fault::PostgresPause, ms(1_000), ms(9_000)),
        Kind::TerminateBackends => (Fault::TerminateBackends, ms(500), ms(6_000)),
        Kind::Cut => {
            let silent = random.chance(50);
            let link = link(copy, random);
            (Fault::Cut { link, silent }, ms(500), ms(12_000))
        }
        Kind::Latency => {
            let delay = random.between(ms(20), ms(800));
            let link = link(copy, random);
            (Fault::Latency { link, delay }, ms(3_000), ms(15_000))
        }
        Kind::Poison => {
            let form = random.below(u64::MAX);
            (Fault::Poison { form }, ms(0), ms(0))
        }
        Kind::Replay => {
            let topic = random.below(saga_contracts::topic::ALL.len() as u64) as usize;
            let place = random.below(u64::MAX);
            (Fault::Replay { topic, place }, ms(0), ms(0))
        }
    }
}

fn link(copy: Copy, random: &mut Random) -> Link {
    match random.below(10) {
        0..=3 => Link::Postgres(copy),
        4..=7 => Link::Kafka(copy),
        8 => Link::Orders(copy.number),
        _ => Link::Sagas(copy.number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_hours(1);

    #[test]
    fn a_seed_makes_one_plan() {
        assert_eq!(plan(3, LENGTH, &Kind::ALL), plan(3, LENGTH, &Kind::ALL));
        assert_ne!(plan(3, LENGTH, &Kind::ALL), plan(4, LENGTH, &Kind::ALL));
    }

    #[test]
    fn an_hour_has_faults_of_every_kind() {
        let plan = plan(1, LENGTH, &Kind::ALL);
        for kind in Kind::ALL {
            assert!(plan.iter().any(|planned| planned.kind == kind), "{kind}");
        }
    }

    #[test]
    fn a_takeover_is_left_alone() {
        let plan = plan(2, LENGTH, &Kind::ALL);
        for takeover in plan.iter().filter(|one| one.kind == Kind::Takeover) {
            let others = plan.iter().filter(|one| one.at != takeover.at);
            for other in others {
                let before = other.at + other.lasts + CALM_BEFORE <= takeover.at;
                let after = other.at >= takeover.at + CALM_AFTER;
                assert!(before || after, "{other:?} disturbs {takeover:?}");
            }
        }
    }
}
