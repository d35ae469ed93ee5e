//! Plans which faults happen when: a pure function of the seed.
//!
//! Faults overlap, since systems break where two faults meet. Only a takeover happens alone: the time that the other
//! copy needs can only be measured while nothing else is wrong.

use clap::ValueEnum;
use saga_harness::Service;
use saga_harness::random::Random;
use saga_postgres::silence::SILENCE_LIMIT;
use std::{fmt, time::Duration};

/// Kinds of faults, as the report counts them.
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
    Silence,
    Latency,
    Poison,
    Replay,
    ParticipantErrs,
}

impl Kind {
    pub const ALL: [Self; 17] = [
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
        Self::Silence,
        Self::Latency,
        Self::Poison,
        Self::Replay,
        Self::ParticipantErrs,
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
            Self::Silence => "silence",
            Self::Latency => "latency",
            Self::Poison => "poison",
            Self::Replay => "replay",
            Self::ParticipantErrs => "participant-errs",
        }
    }

    /// Returns how often faults of this kind are planned, relative to the other kinds.
    fn weight(self) -> u64 {
        match self {
            Self::Kill => 14,
            Self::Freeze | Self::Cut | Self::Replay => 12,
            Self::Silence | Self::Latency => 8,
            Self::Takeover | Self::TerminateBackends => 7,
            Self::Rebalance | Self::Poison | Self::ParticipantErrs => 6,
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

/// One of the two processes of a service. [`Fault::Rebalance`] starts a third for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Copy {
    pub service: Service,
    pub number: usize,
}

/// The number of processes of each service.
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

/// A connection between two parts of the system. A proxy relays it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    Postgres(Copy),
    Kafka(Copy),
    /// The clients' connections to a copy of order-svc.
    Orders(usize),
    /// The connections of a copy of order-svc to the orchestrator's HTTP API.
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

/// A fault, with the part of the system that it affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; the process is started again after the fault's duration.
    Kill(Copy),
    /// SIGSTOP, and SIGCONT after the fault's duration. If this is longer than the Kafka session, the process resumes
    /// as a zombie.
    Freeze(Copy),
    /// Another copy of the service joins, and later leaves after a SIGTERM.
    Rebalance(Service),
    /// Each process in turn gets a SIGTERM and is started again.
    RollingRestart,
    BrokerRestart,
    BrokerKill,
    BrokerPause,
    /// An immediate shutdown: Postgres neither waits for sessions nor writes a checkpoint.
    PostgresRestart,
    PostgresPause,
    /// All client sessions of all services are terminated, repeatedly.
    TerminateBackends,
    /// Connections are reset. If `silent`, they stay open instead, but no data arrives and no error is reported.
    Cut {
        link: Link,
        silent: bool,
    },
    /// The existing connections become silent for good; new connections work. The fault lasts as long as it may take
    /// until no service waits on a silent connection any more.
    Silence {
        link: Link,
    },
    Latency {
        link: Link,
        delay: Duration,
    },
    /// One bad record is published to every topic.
    Poison {
        form: u64,
    },
    /// A range of a topic is published again.
    Replay {
        topic: usize,
        place: u64,
    },
    /// payment-svc answers every new call to its gateway with `error`.
    ParticipantErrs,
}

/// A fault with its start time and its duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    pub at: Duration,
    pub lasts: Duration,
    pub kind: Kind,
    pub fault: Fault,
}

/// Before a takeover, every process must run. After the takeover, nothing else happens for as long as the takeover may
/// take, with a margin for observing it.
const CALM_BEFORE: Duration = Duration::from_secs(8);
const CALM_AFTER: Duration = Duration::from_secs(16);
const GAP_LEAST: Duration = Duration::from_millis(500);
const GAP_MOST: Duration = Duration::from_secs(5);
/// Each error answer of a participant uses up one attempt of the step. Two periods of errors close together could use
/// up all attempts, and the orders that are cancelled then are cancelled rightly.
const ERRORS_APART: Duration = Duration::from_secs(25);
/// The first fault happens after clients have placed orders.
const LEAD: Duration = Duration::from_secs(5);

/// A silent connection is given up after [`SILENCE_LIMIT`]; the next attempt to connect follows within five seconds.
const SILENCE: Duration = SILENCE_LIMIT.saturating_add(Duration::from_secs(5));

/// Returns the faults of a run, ordered by start time.
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
        if kind == Kind::ParticipantErrs {
            let before = plan.iter().filter(|planned| planned.kind == kind);
            let last = before.map(|planned| planned.at + planned.lasts).max();
            if let Some(earliest) = last.map(|last| last + ERRORS_APART)
                && at < earliest
            {
                if kinds.len() > 1 {
                    continue;
                }
                at = earliest;
            }
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

/// Returns a fault of this kind, and its minimum and maximum duration.
fn choose(kind: Kind, random: &mut Random) -> (Fault, Duration, Duration) {
    let ms = Duration::from_millis;
    let copy = *random.pick(&Copy::all());
    match kind {
        Kind::Takeover => {
            let service = Service::Orchestrator;
            let number = random.below(COPIES as u64) as usize;
            let fault = Fault::Kill(Copy { service, number });
            // The killed copy stays down for so long that the other copy takes over.
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
        Kind::Silence => {
            let link = link(copy, random);
            (Fault::Silence { link }, SILENCE, SILENCE)
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
        // Shorter than the sum of the retry pauses in the shipped definitions, with one attempt to spare for the
        // gateway's own rules.
        Kind::ParticipantErrs => (Fault::ParticipantErrs, ms(1_000), ms(2_500)),
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

    /// The plan of `.ci/run`.
    #[test]
    fn the_plan_of_every_change_has_silent_connections_and_participants_that_err() {
        let kinds: Vec<Kind> = Kind::ALL
            .into_iter()
            .filter(|kind| *kind != Kind::Takeover)
            .collect();
        let plan = plan(2, Duration::from_mins(5), &kinds);
        for kind in [Kind::Silence, Kind::ParticipantErrs] {
            assert!(plan.iter().any(|planned| planned.kind == kind), "{kind}");
        }
    }

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
    fn errors_do_not_use_up_the_attempts_of_a_step() {
        let plan = plan(5, LENGTH, &Kind::ALL);
        let errs = |planned: &&Planned| planned.kind == Kind::ParticipantErrs;
        let times: Vec<&Planned> = plan.iter().filter(errs).collect();
        assert!(times.len() > 10);
        for pair in times.windows(2) {
            assert!(pair[0].at + pair[0].lasts + ERRORS_APART <= pair[1].at);
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
