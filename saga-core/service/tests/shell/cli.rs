//! Tests the command line of a service that runs as a process.

use std::{
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Returns the command of the example. cargo builds examples beside the tests.
fn hello() -> Command {
    let mut path: PathBuf = std::env::current_exe().expect("own path");
    path.pop();
    path.pop();
    let mut command = Command::new(path.join("examples/hello"));
    command.env("NO_COLOR", "1");
    command
}

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let variables = variables.iter().copied();
    hello()
        .args(arguments)
        .envs(variables)
        .output()
        .expect("the example is built with the tests")
}

fn check(arguments: &[&str], variables: &[(&str, &str)], code: i32, parts: &[&str]) {
    let output = run(arguments, variables);
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    for part in parts {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    if code == 1 {
        assert_eq!(
            text.lines()
                .filter(|line| line.starts_with("hello: "))
                .count(),
            1,
            "one line: {text}"
        );
    }
}

#[test]
fn it_explains_itself_and_its_configuration() {
    check(&["--version"], &[], 0, &["hello 0."]);
    let help = [
        "--config",
        "--data-dir",
        "HELLO_LISTEN",
        "HELLO__SECTION__KEY",
        "--migrate",
        "second one stops",
    ];
    check(&["--help"], &[], 0, &help);
    check(
        &["--print-config"],
        &[("HELLO__DELAY_MS", "5")],
        0,
        &["delay_ms = 5", "[http]", "listen = "],
    );
    check(
        &["--print-config", "--listen", "127.0.0.1:1234"],
        &[],
        0,
        &["127.0.0.1:1234"],
    );
    check(
        &["--print-config"],
        &[("HELLO_LISTEN", "127.0.0.1:1235")],
        0,
        &["127.0.0.1:1235"],
    );
    check(&["--check-config"], &[], 0, &["valid"]);
}

#[test]
fn errors_are_one_line_and_usage_errors_have_their_own_exit_code() {
    check(&["--nonsense"], &[], 2, &["--nonsense"]);
    check(&["--migrate=never"], &[], 2, &["auto", "check"]);
    check(
        &["--check-config"],
        &[("HELLO__DELAY", "5")],
        1,
        &["delay is not a known key", "HELLO__DELAY"],
    );
    check(
        &["--check-config"],
        &[("HELLO__DELAY_MS", "50000")],
        1,
        &["delay_ms exceeds http.request_timeout_ms"],
    );
    check(
        &["--config", "/nonexistent.toml"],
        &[],
        1,
        &["/nonexistent.toml cannot be read"],
    );
    check(
        &["--data-dir", "/nonexistent"],
        &[],
        1,
        &["/nonexistent/config/hello.toml does not exist", "saga"],
    );
    check(
        &["--check-config"],
        &[("HELLO__LOG__FORMAT", "xml")],
        1,
        &["log.format", "xml"],
    );
    check(
        &[],
        &[("HELLO__LOG__FILTER", "a=b=c")],
        1,
        &["log.filter \"a=b=c\" is not a filter"],
    );
}

#[test]
fn a_taken_port_names_the_flag_and_the_variable() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("address").to_string();
    check(
        &["--listen", &address],
        &[],
        1,
        &[&address, "already in use", "--listen", "HELLO_LISTEN"],
    );
}

#[test]
fn migrations_run_alone_at_start_or_are_only_checked() {
    check(&["migrate"], &[], 0, &["migrated"]);
    check(&["--migrate", "check"], &[], 1, &["lacks migration 1"]);
    check(
        &[],
        &[("HELLO_MIGRATE", "check")],
        1,
        &["lacks migration 1"],
    );
}

#[test]
fn a_data_directory_is_joined_and_the_file_wins_over_it() {
    let directory = std::env::temp_dir().join(format!("saga-cli-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("config")).expect("directory");
    let joined = directory.join("config/hello.toml");
    std::fs::write(&joined, "delay_ms = 7\n[http]\nbody_limit_bytes = 77\n").expect("write");
    let file = directory.join("own.toml");
    std::fs::write(&file, "delay_ms = 8\n").expect("write");
    let (directory_text, file) = (
        directory.to_str().expect("path"),
        file.to_str().expect("path"),
    );
    let arguments = [
        "--print-config",
        "--data-dir",
        directory_text,
        "--config",
        file,
    ];
    check(
        &arguments,
        &[],
        0,
        &["delay_ms = 8", "body_limit_bytes = 77"],
    );
    std::fs::remove_dir_all(&directory).expect("remove");
}

impl Drop for Running {
    /// Ends the process of a failed test.
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A running service and the address that it listens on.
struct Running {
    child: Child,
    address: String,
    log: BufReader<std::process::ChildStderr>,
}

impl Running {
    fn start(variables: &[(&str, &str)]) -> Self {
        let mut child = hello()
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the example is built with the tests");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let address = loop {
            let mut line = String::new();
            assert_ne!(
                log.read_line(&mut line).expect("a line"),
                0,
                "it ended before it listened"
            );
            assert!(
                line.starts_with("hello "),
                "every line names the service: {line}"
            );
            if let Some((_, address)) = line.trim().split_once("address=") {
                break address.to_owned();
            }
        };
        Self {
            child,
            address,
            log,
        }
    }

    fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a pid");
        #[expect(
            unsafe_code,
            reason = "the only way to send a signal to one's own child"
        )]
        let result = unsafe { libc::kill(pid, signal) };
        assert_eq!(result, 0);
    }

    fn ended(mut self) -> (Option<i32>, String) {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                let mut rest = String::new();
                self.log.read_to_string(&mut rest).expect("log");
                return (status.code(), rest);
            }
            assert!(began.elapsed() < Duration::from_secs(15), "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[tokio::test]
async fn the_first_signal_drains() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let running = Running::start(&[("HELLO__DELAY_MS", "500")]);
        let url = format!("http://{}/hello", running.address);
        let answer = tokio::spawn(async move {
            saga_test_support::http_client()
                .get(url)
                .send()
                .await?
                .text()
                .await
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        running.signal(signal);
        assert!(
            answer
                .await
                .expect("no panic")
                .expect("an answer")
                .starts_with("hello ")
        );
        let (code, log) = running.ended();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("stopped"), "{log}");
    }
}

#[test]
fn the_second_signal_stops_at_once() {
    let running = Running::start(&[("HELLO__STUBBORN", "true")]);
    running.signal(libc::SIGTERM);
    // Two signals that arrive together count as one.
    std::thread::sleep(Duration::from_millis(300));
    running.signal(libc::SIGTERM);
    let (code, log) = running.ended();
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains("stopped before everything was finished"),
        "{log}"
    );
}

#[tokio::test]
async fn json_lines_carry_the_correlation_id() {
    let mut child = hello()
        .env("HELLO__LOG__FORMAT", "json")
        .stderr(Stdio::piped())
        .spawn()
        .expect("the example is built with the tests");
    let log = BufReader::new(child.stderr.take().expect("piped"));
    let mut running = Running {
        child,
        address: String::new(),
        log,
    };
    let mut next = || {
        let mut line = String::new();
        running.log.read_line(&mut line).expect("a line");
        serde_json::from_str::<serde_json::Value>(&line).expect("JSON")
    };
    let address = loop {
        let line = next();
        assert_eq!(line["service"], "hello");
        if let Some(address) = line["address"].as_str() {
            break address.to_owned();
        }
    };
    let client = saga_test_support::http_client();
    let request = client
        .get(format!("http://{address}/hello"))
        .header("x-correlation-id", "mine");
    request.send().await.expect("answer");
    let line = next();
    assert_eq!(line["correlation.id"], "mine", "{line}");
    assert_eq!(
        (line["method"].as_str(), line["path"].as_str()),
        (Some("GET"), Some("/hello"))
    );
    assert_eq!(line["status"], 200);
    assert!(
        line["duration_ms"].is_number() && line["timestamp"].is_string(),
        "{line}"
    );
}
