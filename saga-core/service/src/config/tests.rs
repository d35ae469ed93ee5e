use super::*;
use crate::{Service, ServiceConfig, http::HttpConfig, lifecycle::Shutdown, telemetry::LogConfig};
use saga_core::secret::Secret;
use saga_postgres::PostgresConfig;
use serde::Deserialize;
use std::{collections::BTreeMap, path::PathBuf};
use tokio::net::TcpListener;

struct Shop;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShopConfig {
    http: HttpConfig,
    log: LogConfig,
    postgres: PostgresConfig,
    limits: Limits,
    #[serde(default)]
    participants: BTreeMap<String, Participant>,
    token: Option<Secret>,
    #[serde(default)]
    pace: Pace,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Pace {
    #[default]
    Slow,
    Fast,
}

/// A section without `deny_unknown_fields`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Limits {
    attempts: u32,
    ratio: f64,
    strict: bool,
    kind: Kind,
    names: Vec<String>,
    numbers: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Small,
    Fixed(u32),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Participant {
    topic: String,
    group: Option<String>,
}

impl Service for Shop {
    const NAME: &'static str = "my-shop";
    const DEFAULTS: &'static str = r#"
        [http]
        listen = "127.0.0.1:3000"
        allowed_hosts = []
        body_limit_bytes = 1000
        request_timeout_ms = 1000
        cors_origins = []

        [log]
        format = "human"
        filter = "info"

        [postgres]
        # url has no default
        max_connections = 10
        connect_timeout_ms = 1000

        [limits]
        attempts = 3
        ratio = 0.5
        strict = false
        kind = "small"
        names = ["a"]
        numbers = [1]
    "#;
    type Config = ShopConfig;

    async fn migrate(_: &ShopConfig) -> anyhow::Result<()> {
        Ok(())
    }

    async fn check_migrations(_: &ShopConfig) -> anyhow::Result<()> {
        Ok(())
    }

    async fn run(_: ShopConfig, _: TcpListener, _: Shutdown) -> anyhow::Result<()> {
        Ok(())
    }
}

impl ServiceConfig for ShopConfig {
    fn http(&self) -> &HttpConfig {
        &self.http
    }

    fn log(&self) -> &LogConfig {
        &self.log
    }

    fn postgres(&self) -> Option<&PostgresConfig> {
        Some(&self.postgres)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.limits.attempts > self.http.body_limit_bytes as u32 {
            return Err(ConfigError::new(
                "limits.attempts exceeds http.body_limit_bytes",
            ));
        }
        Ok(())
    }
}

const URL: &str = "postgres://shop:hunter2@db:5432/shop";

/// Loads the configuration from a file's text, variables and overrides.
fn loaded(
    file: &str,
    variables: &[(&str, &str)],
    overrides: &str,
) -> Result<ShopConfig, ConfigError> {
    let path = scratch(file);
    let pair = |(name, value): &(&str, &str)| ((*name).into(), (*value).into());
    let environment = std::iter::once(("MY_SHOP__POSTGRES__URL".into(), URL.into()))
        .chain(variables.iter().map(pair))
        .collect();
    let config = load_from::<Shop>(&Sources {
        files: vec![&path],
        environment,
        overrides: Some(overrides),
    });
    std::fs::remove_file(path).expect("remove");
    config
}

fn scratch(text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("saga-config-{}.toml", uuid::Uuid::new_v4()));
    std::fs::write(&path, text).expect("write");
    path
}

#[test]
fn later_layers_win() {
    let config = loaded("", &[], "").expect("defaults");
    assert_eq!(
        (config.limits.attempts, config.http.listen.port()),
        (3, 3000)
    );
    let file = "[limits]\nattempts = 4\n[http]\nlisten = \"127.0.0.1:4000\"";
    let config = loaded(file, &[], "").expect("file");
    assert_eq!(
        (config.limits.attempts, config.http.listen.port()),
        (4, 4000)
    );
    let config = loaded(file, &[("MY_SHOP__LIMITS__ATTEMPTS", "5")], "").expect("environment");
    assert_eq!(
        (config.limits.attempts, config.http.listen.port()),
        (5, 4000)
    );
    let config = loaded(
        file,
        &[("MY_SHOP__LIMITS__ATTEMPTS", "5")],
        "[limits]\nattempts = 6",
    )
    .expect("overrides");
    assert_eq!(config.limits.attempts, 6);
}

#[test]
fn the_field_decides_how_a_variable_is_read() {
    let config = loaded(
        "",
        &[
            ("MY_SHOP__LIMITS__RATIO", "2"),
            ("MY_SHOP__LIMITS__STRICT", "true"),
            ("MY_SHOP__LIMITS__KIND", "small"),
            ("MY_SHOP__LIMITS__NAMES", "x, y,,z"),
            ("MY_SHOP__LIMITS__NUMBERS", "7,8"),
            ("MY_SHOP__PARTICIPANTS__SHIPPING__TOPIC", "12345"),
            ("MY_SHOP__PARTICIPANTS__SHIPPING__GROUP", ""),
            ("MY_SHOP__TOKEN", "true"),
            ("MY_SHOP_LISTEN", "belongs to the command line"),
            ("OTHER__LIMITS__STRICT", "not ours"),
        ],
        "",
    )
    .expect("fits");
    assert!((config.limits.ratio - 2.0).abs() < f64::EPSILON && config.limits.strict);
    assert_eq!(config.limits.names, ["x", "y", "z"]);
    assert_eq!(config.limits.numbers, [7, 8]);
    let shipping = Participant {
        topic: "12345".to_owned(),
        group: None,
    };
    assert_eq!(config.participants["shipping"], shipping);
    assert_eq!(config.token.expect("token").expose(), "true");
    let config = loaded(
        "[limits.kind]\nfixed = 3",
        &[("MY_SHOP__LIMITS__NAMES", "")],
        "",
    )
    .expect("fits");
    assert_eq!(config.limits.kind, Kind::Fixed(3));
    let list = "[\"a, b\", \"c\"]";
    let quoted = loaded("", &[("MY_SHOP__LIMITS__NAMES", list)], "").expect("fits");
    assert_eq!(quoted.limits.names, ["a, b", "c"]);
    assert!(config.limits.names.is_empty());
}

#[test]
fn a_text_that_looks_like_another_type_remains_a_text() {
    for text in ["111111", "1e3", "true", "[1]", "a,b", " "] {
        let config = loaded("", &[("MY_SHOP__TOKEN", text)], "").expect("fits");
        assert_eq!(config.token.expect("token").expose(), text);
    }
}

#[test]
fn an_empty_variable_is_none_or_empty() {
    let config = loaded("token = \"hunter3\"", &[("MY_SHOP__TOKEN", "")], "").expect("fits");
    assert!(config.token.is_none());
    let topic = ("MY_SHOP__PARTICIPANTS__SHIPPING__TOPIC", "");
    let config = loaded("", &[topic], "").expect("fits");
    assert_eq!(config.participants["shipping"].topic, "");
    let pace = ("MY_SHOP__PACE", "");
    refused(
        "pace = \"fast\"",
        &[pace],
        "",
        &["pace: ", "fast", "MY_SHOP__PACE"],
    );
    let unknown = ("MY_SHOP__HTTP__PORT", "");
    refused(
        "",
        &[unknown],
        "",
        &["http.port is not a known key", "PORT"],
    );
    let unknown = ("MY_SHOP__LIMITS__ATEMPTS", "");
    refused("", &[unknown], "", &["limits.atempts is not a known key"]);
    refused(
        "",
        &[("MY_SHOP__LIMITS__ATTEMPTS", "")],
        "",
        &[
            "limits.attempts is not set",
            "MY_SHOP__LIMITS__ATTEMPTS is empty",
        ],
    );
}

#[test]
fn a_file_gives_each_field_its_own_type() {
    for (value, found) in [("attempts = 3.7", "3.7"), ("attempts = true", "true")] {
        let file = format!("[limits]\n{value}");
        refused(&file, &[], "", &["limits.attempts: ", found, "u32"]);
    }
    refused("[limits]\nstrict = 1", &[], "", &["limits.strict: ", "1"]);
    refused("token = 111111", &[], "", &["token: ", "saga-config-"]);
}

fn refused(file: &str, variables: &[(&str, &str)], overrides: &str, parts: &[&str]) {
    let message = loaded(file, variables, overrides)
        .expect_err("refused")
        .to_string();
    for part in parts {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

#[test]
fn a_refusal_names_the_key_and_its_file() {
    refused(
        "[limits]\nattempts = -1",
        &[],
        "",
        &["limits.attempts: ", "-1", "saga-config-"],
    );
    refused(
        "[limits]\nattemps = 1",
        &[],
        "",
        &["limits.attemps is not a known key", "saga-config-"],
    );
    refused(
        "[limit]\nattempts = 1",
        &[],
        "",
        &["limit is not a known key", "saga-config-"],
    );
    refused(
        "[http]\nlisten = 3000",
        &[],
        "",
        &["http.listen: ", "3000", "saga-config-"],
    );
    refused(
        "",
        &[],
        "[log]\nformat = \"xml\"",
        &["log.format: ", "xml", "human", "the command line"],
    );
    refused(
        "[limits]\nattempts = 1001",
        &[],
        "",
        &["limits.attempts exceeds http.body_limit_bytes"],
    );
}

#[test]
fn a_list_is_not_read_as_the_keys_of_a_section() {
    let text = "a list is given, but this is a section";
    let participant = "participants.shipping = [\"commands\", \"group\"]";
    refused(participant, &[], "", &["participants.shipping: ", text]);
}

#[test]
fn a_refusal_names_the_key_and_its_variable() {
    let variable = |name, value, parts: &[&str]| refused("", &[(name, value)], "", parts);
    variable(
        "MY_SHOP__LIMITS__ATTEMPTS",
        "many",
        &[
            "limits.attempts: ",
            "\"many\"",
            "u32",
            "environment variable MY_SHOP__LIMITS__ATTEMPTS",
        ],
    );
    variable(
        "MY_SHOP__LIMITS__NUMBERS",
        "1,two",
        &["limits.numbers.1: ", "\"two\"", "MY_SHOP__LIMITS__NUMBERS"],
    );
    variable(
        "MY_SHOP__LIMITS__KIND",
        "huge",
        &["limits.kind: ", "huge", "small", "MY_SHOP__LIMITS__KIND"],
    );
    variable(
        "MY_SHOP__HTTP__PORT",
        "1",
        &[
            "http.port is not a known key",
            "MY_SHOP__HTTP__PORT",
            "listen",
        ],
    );
    variable(
        "MY_SHOP__LIMITS__ATEMPTS",
        "1",
        &[
            "limits.atempts is not a known key",
            "MY_SHOP__LIMITS__ATEMPTS",
        ],
    );
    variable(
        "MY_SHOP__NOTHING",
        "1",
        &["nothing is not a known key", "MY_SHOP__NOTHING"],
    );
    variable(
        "MY_SHOP__HTTP",
        "1",
        &[
            "sets http, which is a section",
            "MY_SHOP__HTTP__ALLOWED_HOSTS",
        ],
    );
    variable(
        "MY_SHOP__LIMITS__STRICT__ER",
        "1",
        &["limits.strict is a value and not a section"],
    );
    variable("MY_SHOP____HTTP", "1", &["MY_SHOP____HTTP names no key"]);
    variable(
        "MY_SHOP__HTTP__LISTEN",
        "here",
        &["http.listen: ", "MY_SHOP__HTTP__LISTEN"],
    );
}

#[test]
fn a_key_without_a_default_is_required() {
    let message = load_from::<Shop>(&Sources::default())
        .expect_err("refused")
        .to_string();
    assert_eq!(
        message,
        "postgres.url is not set: give it in a configuration file, or as MY_SHOP__POSTGRES__URL"
    );
}

#[test]
fn a_broken_file_is_named_without_its_text() {
    let message = loaded("[limits]\nattempts = 1\ntoken = \"hunter3", &[], "")
        .expect_err("refused")
        .to_string();
    assert!(
        message.contains("saga-config-") && message.contains("line 3"),
        "{message}"
    );
    assert!(!message.contains("hunter3"), "{message}");
    let missing = Path::new("/nonexistent/shop.toml");
    let sources = Sources {
        files: vec![missing],
        ..Sources::default()
    };
    let message = load_from::<Shop>(&sources)
        .expect_err("refused")
        .to_string();
    assert!(
        message.contains("/nonexistent/shop.toml cannot be read"),
        "{message}"
    );
}

#[test]
fn a_printed_configuration_hides_secrets_and_can_be_loaded() {
    let config = loaded("", &[("MY_SHOP__TOKEN", "hunter3")], "").expect("fits");
    let text = to_toml(&config).expect("TOML");
    assert!(
        !text.contains("hunter") && !format!("{config:?}").contains("hunter"),
        "{text}"
    );
    assert!(text.contains("postgres://shop:***@db:5432/shop"), "{text}");
    assert!(text.contains("token = \"***\""), "{text}");
    loaded(&text, &[], "").expect("a file that was printed loads");
}
