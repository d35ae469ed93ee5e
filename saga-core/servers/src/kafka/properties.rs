//! The broker's settings: one node, on loopback, sized for a laptop.

use std::{collections::BTreeMap, fmt::Write, path::Path};

pub(super) const LOGGING: &str = "\
status=error
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %m (%c)%n
logger.start.name=kafka.server.KafkaRaftServer
logger.start.level=info
logger.groups.name=org.apache.kafka.coordinator.group
logger.groups.level=info
";

/// Settings that do not depend on ports and paths. The container's variables are made from them, too.
pub(super) const COMMON: &[(&str, &str)] = &[
    ("process.roles", "broker,controller"),
    ("node.id", "1"),
    ("controller.listener.names", "CONTROLLER"),
    (
        "listener.security.protocol.map",
        "CONTROLLER:PLAINTEXT,BROKER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    ),
    // Topics are created explicitly, with chosen settings.
    ("auto.create.topics.enable", "false"),
    // One node has no replicas.
    ("offsets.topic.replication.factor", "1"),
    ("offsets.topic.num.partitions", "4"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("transaction.state.log.num.partitions", "4"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    // A group does not wait for members that may join.
    ("group.initial.rebalance.delay.ms", "0"),
    // Groups may choose short sessions, so that a dead member is noticed soon.
    ("group.min.session.timeout.ms", "1000"),
    // A broker that was killed can register again after this time; the default is 9 s.
    ("broker.session.timeout.ms", "2000"),
    ("broker.heartbeat.interval.ms", "500"),
    // One week, in segments small enough that old ones are deleted in time. There is no limit by size, because it would
    // delete records that were not consumed.
    ("log.retention.hours", "168"),
    ("log.segment.bytes", "67108864"),
    // The default reserves 128 MiB of heap to compact one small topic.
    ("log.cleaner.dedupe.buffer.size", "8388608"),
    ("num.network.threads", "2"),
    ("num.io.threads", "4"),
    ("background.threads", "4"),
];

/// Properties by name.
pub(super) type Properties = BTreeMap<String, String>;

pub(super) fn server(data: &Path, port: u16, controller_port: u16) -> Properties {
    let listener = format!("PLAINTEXT://127.0.0.1:{port}");
    let own = [
        (
            "controller.quorum.voters",
            format!("1@127.0.0.1:{controller_port}"),
        ),
        (
            "listeners",
            format!("{listener},CONTROLLER://127.0.0.1:{controller_port}"),
        ),
        ("advertised.listeners", listener),
        ("log.dirs", data.display().to_string()),
    ];
    let common = COMMON
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    common
        .chain(own)
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Returns the text of the file. `extra` overrides `own`.
pub(super) fn write(own: Properties, extra: &Properties) -> String {
    let mut all = own;
    all.extend(extra.clone());
    all.iter().fold(String::new(), |mut text, (name, value)| {
        // A backslash begins an escape sequence in a properties file.
        writeln!(text, "{name}={}", value.replace('\\', "\\\\")).expect("a String takes any text");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_properties_override_the_servers_own() {
        let extra = [
            ("num.io.threads", "2"),
            ("ssl.keystore.location", "C:\\key"),
        ];
        let extra = extra.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let text = write(server(Path::new("/data"), 1, 2), &extra.into());
        let has = |line: &str| text.lines().any(|found| found == line);
        assert!(
            has("num.io.threads=2") && !has("num.io.threads=4"),
            "{text}"
        );
        assert!(
            has("ssl.keystore.location=C:\\\\key") && has("log.dirs=/data"),
            "{text}"
        );
    }
}
