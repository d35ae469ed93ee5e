//! Reads from the broker which instance owns which partitions, and from the instances how many records each has read.

use crate::{
    kafka,
    system::{Instance, System},
};
use anyhow::{Context, Result, bail};
use bytes::Buf;
use rdkafka::consumer::{BaseConsumer, Consumer};
use saga_contracts::topic;
use saga_harness::system::Service;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// How long to wait. A group's rebalance takes a heartbeat or two, and longer with a broker on a busy machine.
const LIMIT: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(250);
const STABLE: &str = "Stable";

/// The number of partitions by the instance's name.
pub type Groups = BTreeMap<String, usize>;
/// The number of records that each instance has read.
pub type Records = BTreeMap<Instance, u64>;

fn group_of(service: Service) -> &'static str {
    match service {
        Service::Orchestrator => topic::ORCHESTRATOR_GROUP,
        Service::Order => topic::ORDER_GROUP,
        Service::Inventory => topic::INVENTORY_GROUP,
        Service::Payment => topic::PAYMENT_GROUP,
    }
}

/// Waits until the group of each of these services is stable and each of its copies owns some of its partitions.
pub async fn shared(
    brokers: &str,
    services: &[Service],
    copies: usize,
    partitions: i32,
) -> Result<Groups> {
    let began = Instant::now();
    let names: Vec<&str> = services.iter().copied().map(group_of).collect();
    loop {
        let (brokers, names) = (brokers.to_owned(), names.clone());
        let found = tokio::task::spawn_blocking(move || look(&brokers, &names)).await??;
        if found.len() == services.len()
            && found
                .iter()
                .all(|owned| is_shared(owned, copies, partitions))
        {
            return Ok(found.into_iter().flatten().collect());
        }
        if began.elapsed() > LIMIT {
            bail!("{copies} copies do not share {partitions} partitions: {found:?}");
        }
        sleep(POLL).await;
    }
}

fn is_shared(owned: &Groups, copies: usize, partitions: i32) -> bool {
    owned.len() == copies
        && owned.values().all(|count| *count > 0)
        && owned.values().sum::<usize>() == partitions as usize
}

/// Returns the owners of the groups that are stable. Blocks.
fn look(brokers: &str, names: &[&str]) -> Result<Vec<Groups>> {
    let client: BaseConsumer = kafka::consumer(brokers)?;
    let mut all = Vec::new();
    for name in names {
        let list = client
            .fetch_group_list(Some(name), kafka::QUERY_TIMEOUT)
            .with_context(|| format!("the members of {name}"))?;
        let found = list.groups().iter();
        for group in found.filter(|group| group.name() == *name && group.state() == STABLE) {
            let mut owned = Groups::new();
            for member in group.members() {
                let assigned = assigned(member.assignment().unwrap_or_default());
                *owned.entry(member.client_id().to_owned()).or_default() += assigned;
            }
            all.push(owned);
        }
    }
    Ok(all)
}

/// Returns how many partitions an assignment holds. Its format: a version, then topics, each with its name and its
/// partitions. An assignment that cannot be read counts as empty.
fn assigned(mut bytes: &[u8]) -> usize {
    let mut read = || {
        let mut count = 0;
        bytes.try_get_u16().ok()?;
        for _ in 0..bytes.try_get_u32().ok()? {
            let name = bytes.try_get_u16().ok()?;
            bytes = bytes.get(usize::from(name)..)?;
            let partitions = bytes.try_get_u32().ok()? as usize;
            bytes = bytes.get(partitions.checked_mul(4)?..)?;
            count += partitions;
        }
        Some(count)
    };
    read().unwrap_or(0)
}

/// Returns how many records each instance has read from its topic since it was started.
pub async fn consumed(system: &System, copies: usize) -> Result<Records> {
    let mut all = Records::new();
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

/// Returns the number of consumed records from the text of the metrics. There is no such line before the first record.
fn records(metrics: &str, group: &str) -> u64 {
    let label = format!("group=\"{group}\"");
    let lines = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix("saga_records_consumed_total{")?;
        let (labels, value) = rest.rsplit_once(' ')?;
        labels.contains(&label).then(|| value.parse::<f64>().ok())?
    });
    lines.sum::<f64>() as u64
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
    fn partitions_are_shared_when_every_copy_has_some() {
        let check = |counts: &[usize], expected: bool| {
            let numbered = counts.iter().enumerate();
            let owned = numbered
                .map(|(number, count)| (number.to_string(), *count))
                .collect();
            assert_eq!(is_shared(&owned, 2, 4), expected, "{counts:?}");
        };
        check(&[1, 3], true);
        check(&[2, 2], true);
        check(&[4, 0], false);
        check(&[4], false);
        check(&[1, 2], false);
        check(&[1, 2, 1], false);
        check(&[], false);
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
