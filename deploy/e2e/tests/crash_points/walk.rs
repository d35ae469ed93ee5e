//! Decides which service crashes at which point, and tracks the progress.

use anyhow::{Context, Result, bail, ensure};
use saga_harness::{Service, System};
use saga_messaging::crash_point::CrashPoint;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

/// The time limit for a service to reach its crash point, far above the usual time. The longest waits are the lease of
/// an abandoned outbox row, and the seconds for which a crashed group member keeps its partitions.
const PATIENCE: Duration = Duration::from_mins(3);
const LOOK: Duration = Duration::from_millis(50);
const CONSUMERS: &[Service] = &Service::ALL;
const PARTICIPANTS: &[Service] = &[Service::Order, Service::Inventory, Service::Payment];

/// Returns the services that pass this point.
fn services(point: CrashPoint) -> &'static [Service] {
    match point {
        CrashPoint::RuleBeforeTransaction
        | CrashPoint::RuleBeforePublish
        | CrashPoint::RuleBeforeDone
        | CrashPoint::RuleAfterDone
        | CrashPoint::LogBeforeProduce
        | CrashPoint::LogBeforeAck => CONSUMERS,
        CrashPoint::FrameAfterBegin
        | CrashPoint::FrameBeforeCommit
        | CrashPoint::FrameAfterCommit => PARTICIPANTS,
        CrashPoint::CallBeforeCall
        | CrashPoint::CallAfterCall
        | CrashPoint::CallBeforeSettle
        | CrashPoint::CallAfterSettle
        | CrashPoint::CallAfterPublish
        | CrashPoint::CallBeforeClose
        | CrashPoint::CallAfterClose => &[Service::Payment],
        CrashPoint::EngineAfterLoad
        | CrashPoint::EngineBeforeCommit
        | CrashPoint::EngineAfterCommit
        | CrashPoint::TimersBeforeProduce
        | CrashPoint::TimersAfterProduce => &[Service::Orchestrator],
        CrashPoint::OutboxBeforePublish
        | CrashPoint::OutboxAfterPublish
        | CrashPoint::OutboxBeforeRemove
        | CrashPoint::OutboxAfterRemove
        | CrashPoint::OrderBeforeCommit
        | CrashPoint::OrderAfterCommit
        | CrashPoint::CancelBeforeCommit
        | CrashPoint::CancelAfterCommit => &[Service::Order],
        // Queued behind the point that leaves a row to claim: see `queue`.
        CrashPoint::OutboxAfterClaim => &[],
    }
}

/// Returns the points of a service in the order of visits. The outbox's sweep has a row to claim only after a crash
/// that left the row behind.
fn queue(service: Service) -> VecDeque<CrashPoint> {
    let mut points = VecDeque::new();
    for point in CrashPoint::ALL {
        if services(*point).contains(&service) {
            points.push_back(*point);
        }
        if *point == CrashPoint::OrderAfterCommit && service == Service::Order {
            points.push_back(CrashPoint::OutboxAfterClaim);
        }
    }
    points
}

/// The crash point that a service is started with, and the time of the start.
struct Armed {
    point: CrashPoint,
    since: Instant,
}

pub struct Walk {
    system: &'static System,
    queues: BTreeMap<Service, VecDeque<CrashPoint>>,
    armed: BTreeMap<Service, Armed>,
    visited: BTreeSet<(CrashPoint, Service)>,
    /// The number of crashes so far. It varies whether a point crashes the service at the first, second or third
    /// passing.
    crashes: usize,
}

impl Walk {
    /// Starts every service again, with its first crash point.
    pub fn begin(system: &'static System) -> Result<Self> {
        let mut walk = Self {
            system,
            queues: Service::ALL.map(|service| (service, queue(service))).into(),
            armed: BTreeMap::new(),
            visited: BTreeSet::new(),
            crashes: 0,
        };
        for service in Service::ALL {
            system.stop(service)?;
            walk.start_next(service)?;
        }
        Ok(walk)
    }

    /// Starts a service with its next crash point, or without one if all are visited. If the service crashes during its
    /// start, [`Walk::finish`] starts it again.
    fn start_next(&mut self, service: Service) -> Result<()> {
        let next = self.queues.get_mut(&service).and_then(VecDeque::pop_front);
        let failpoints = next.map(|point| {
            let passed_seldom = matches!(
                point,
                CrashPoint::OutboxAfterClaim
                    | CrashPoint::TimersBeforeProduce
                    | CrashPoint::TimersAfterProduce
            );
            let passes = if passed_seldom { 0 } else { self.crashes % 3 };
            format!("{point}={passes}*off->return")
        });
        self.system
            .set_environment(service, "FAILPOINTS", failpoints.as_deref())?;
        self.system.spawn(service)?;
        match next {
            Some(point) => {
                let since = Instant::now();
                self.armed.insert(service, Armed { point, since });
            }
            None => {
                self.armed.remove(&service);
            }
        }
        Ok(())
    }

    /// Runs until every service has crashed at each of its points, and all services are ready again.
    pub async fn finish(&mut self) -> Result<()> {
        while !self.armed.is_empty() {
            for service in Service::ALL {
                self.look_at(service)?;
            }
            tokio::time::sleep(LOOK).await;
        }
        for service in Service::ALL {
            self.system.ready(service).await?;
        }
        Ok(())
    }

    fn look_at(&mut self, service: Service) -> Result<()> {
        let Some(exited) = self.system.exited(service)? else {
            return self.is_late(service);
        };
        let armed = self.armed.get(&service);
        let point = armed.map(|armed| armed.point);
        ensure!(
            exited.signal() == Some(libc::SIGABRT),
            "{} ended with {exited} on its way to {point:?}:\n{}",
            service.name(),
            self.system.tail(service)?
        );
        let point =
            point.with_context(|| format!("{} died without having been armed", service.name()))?;
        let after = armed.map_or(Duration::ZERO, |armed| armed.since.elapsed());
        self.crashes += 1;
        println!(
            "{:>3}  {:<13} died at {point} after {:.1} s",
            self.crashes,
            service.name(),
            after.as_secs_f64()
        );
        self.visited.insert((point, service));
        self.start_next(service)
    }

    fn is_late(&self, service: Service) -> Result<()> {
        match self.armed.get(&service) {
            Some(armed) if armed.since.elapsed() > PATIENCE => bail!(
                "{} never reached {}:\n{}",
                service.name(),
                armed.point,
                self.system.tail(service)?
            ),
            Some(_) | None => Ok(()),
        }
    }

    /// Checks that every point was visited, against the list in the code rather than the plan of this walk.
    pub fn has_visited_every_point(&self) {
        let visited: BTreeSet<CrashPoint> = self.visited.iter().map(|(point, _)| *point).collect();
        let all: BTreeSet<CrashPoint> = CrashPoint::ALL.iter().copied().collect();
        let missed: Vec<&CrashPoint> = all.difference(&visited).collect();
        assert!(missed.is_empty(), "never hit: {missed:?}");
        println!(
            "{} crash points, {} crashes of services",
            visited.len(),
            self.crashes
        );
    }
}
