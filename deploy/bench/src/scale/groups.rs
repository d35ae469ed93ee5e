//! Who owns which partitions, as the broker tells it, and what each instance has read.

use super::report::Share;
use crate::{
    kafka,
    measure::Cost,
    system::{Instance, System},
};
use anyhow::{Context, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use saga_contracts::topic;
use saga_e2e::system::Service;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// A group's rebalance takes a heartbeat or two; a broker on a busy machine takes longer.
const LIMIT: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(250);
const STABLE: &str = "Stable";

/// Partitions by the instance's name.
pub type Groups = BTreeMap<String, usize>;

fn group_of(service: Service) -> &'static str {
    match service {
        Service::Orchestrator => topic::ORCHESTRATOR_GROUP,
        Service::Order => topic::ORDER_GROUP,
        Service::Inventory => topic::INVENTORY_GROUP,
        Service::Payment => topic::PAYMENT_GROUP,
    }
}

/// Waits until every group is stable and each of its copies owns some of its partitions.
pub async fn shared(brokers: &str, copies: usize, partitions: i32) -> Result<Groups> {
    let began = Instant::now();
    let brokers = brokers.to_owned();
    loop {
        let brokers = brokers.clone();
        let found = tokio::task::spawn_blocking(move || look(&brokers)).await??;
        if is_shared(&found, copies, usize::try_from(partitions)?) {
            return Ok(found.into_values().flatten().collect());
        }
        if began.elapsed() > LIMIT {
            bail!("{copies} copies do not share {partitions} partitions: {found:?}");
        }
        sleep(POLL).await;
    }
}

fn is_shared(found: &BTreeMap<&str, Groups>, copies: usize, partitions: usize) -> bool {
    found.len() == Service::ALL.len()
        && found.values().all(|owned| {
            owned.len() == copies
                && owned.values().all(|count| *count > 0)
                && owned.values().sum::<usize>() == partitions
        })
}

/// Of the groups that are stable. Blocks.
fn look(brokers: &str) -> Result<BTreeMap<&'static str, Groups>> {
    let client: BaseConsumer = kafka::consumer(brokers)?;
    let mut all = BTreeMap::new();
    for name in Service::ALL.map(group_of) {
        let list = client
            .fetch_group_list(Some(name), kafka::QUERY_TIMEOUT)
            .with_context(|| format!("the members of {name}"))?;
        let found = list.groups().iter();
        for group in found.filter(|group| group.name() == name && group.state() == STABLE) {
            let mut owned = Groups::new();
            for member in group.members() {
                let assigned = assigned(member.assignment().unwrap_or_default());
                *owned.entry(member.client_id().to_owned()).or_default() += assigned;
            }
            all.insert(name, owned);
        }
    }
    Ok(all)
}

/// How many partitions an assignment holds: a version, then topics, each with its name and its partitions. Whatever
/// cannot be read is none.
fn assigned(bytes: &[u8]) -> usize {
    let mut reader = Reader(bytes);
    let mut count = 0;
    let mut read = || {
        reader.take(2)?;
        for _ in 0..reader.number(4)? {
            let name = reader.number(2)?;
            reader.take(name)?;
            let partitions = reader.number(4)?;
            reader.take(partitions.checked_mul(4)?)?;
            count += partitions;
        }
        Some(())
    };
    read().map_or(0, |()| count)
}

/// Big-endian.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, length: usize) -> Option<usize> {
        let bytes = self.take(length)?;
        Some(
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        )
    }
}

/// Records that each instance has read from its topic since it was started.
pub async fn consumed(system: &System, copies: usize) -> Result<BTreeMap<Instance, u64>> {
    let mut all = BTreeMap::new();
    for number in 0..copies {
        for service in Service::ALL {
            let instance = Instance { service, number };
            let url = format!("http://{}/metrics", system.address_of(instance));
            let answer = system.http.get(url).send().await?.error_for_status()?;
            let count = records(&answer.text().await?, group_of(service));
            all.insert(instance, count);
        }
    }
    Ok(all)
}

/// There is no line before the first record.
fn records(metrics: &str, group: &str) -> u64 {
    let label = format!("group=\"{group}\"");
    let lines = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix("saga_records_consumed_total{")?;
        let (labels, value) = rest.rsplit_once(' ')?;
        labels.contains(&label).then(|| value.parse::<f64>().ok())?
    });
    lines.sum::<f64>() as u64
}

/// What each instance had of a stage.
pub fn shares(
    owned: &Groups,
    before: &BTreeMap<Instance, u64>,
    after: &BTreeMap<Instance, u64>,
    cost: &Cost,
) -> Vec<Share> {
    let of = |(instance, count): (&Instance, &u64)| {
        let name = instance.name();
        Share {
            service: instance.service.name(),
            partitions: owned.get(&name).copied().unwrap_or(0),
            records: count.saturating_sub(before.get(instance).copied().unwrap_or(0)),
            cpu_us_a_saga: cost
                .processes
                .get(&name)
                .map_or(0.0, |process| process.cpu_us_a_saga),
            instance: name,
        }
    };
    after.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_an_assignment_are_counted_over_all_topics() {
        let mut bytes = vec![0, 1, 0, 0, 0, 2];
        for (name, partitions) in [("a", 2_u8), ("long", 1)] {
            bytes.extend([0, name.len() as u8]);
            bytes.extend(name.as_bytes());
            bytes.extend([0, 0, 0, partitions]);
            bytes.extend((0..partitions).flat_map(|partition| [0, 0, 0, partition]));
        }
        bytes.extend([255; 4]);
        assert_eq!(assigned(&bytes), 3);
        let (part, _) = bytes.split_at(12);
        assert_eq!(assigned(part), 0);
        assert_eq!(assigned(&[]), 0);
    }

    #[test]
    fn partitions_are_shared_when_every_copy_of_every_group_has_some() {
        let owned = |counts: &[usize]| -> Groups {
            let numbered = counts.iter().enumerate();
            numbered
                .map(|(number, count)| (number.to_string(), *count))
                .collect()
        };
        let check = |last: &[usize], expected: bool| {
            let mut found: BTreeMap<&str, Groups> = Service::ALL
                .map(|service| (group_of(service), owned(&[1, 3])))
                .into();
            found.insert(topic::PAYMENT_GROUP, owned(last));
            assert_eq!(is_shared(&found, 2, 4), expected, "{last:?}");
        };
        check(&[2, 2], true);
        check(&[4, 0], false);
        check(&[4], false);
        check(&[1, 2], false);
        check(&[1, 2, 1], false);
        assert!(!is_shared(&BTreeMap::new(), 2, 4));
    }

    #[test]
    fn only_records_of_the_own_group_are_counted() {
        let metrics = "# TYPE saga_records_consumed_total counter\n\
             saga_records_consumed_total{topic=\"a\",group=\"order-svc\"} 12\n\
             saga_records_consumed_total{topic=\"b\",group=\"order-svc\"} 3\n\
             saga_records_consumed_total{topic=\"c\",group=\"other\"} 100\n\
             saga_records_produced_total 7\n";
        assert_eq!(records(metrics, "order-svc"), 15);
        assert_eq!(records("", "order-svc"), 0);
    }
}
