//! A real, headless Chromium, controlled over WebDriver (HTTP and JSON). Implements only the few commands used here.

use anyhow::{Context, Result, bail, ensure};
use saga_test_support::environment::reaper;
use serde_json::{Value, json};
use std::{
    fs,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const DRIVER: &str = "chromedriver";
const START_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
/// The key under which WebDriver puts an element's id in JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub const ENTER: &str = "\u{E007}";
pub const ESCAPE: &str = "\u{E00C}";

pub struct Browser {
    http: reqwest::Client,
    driver: Child,
    directory: PathBuf,
    session: String,
}

/// Returns true if a test of the page must be skipped because no browser is installed, and prints that. Never returns
/// true in CI, which installs a browser.
pub fn is_missing(test: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|at| at.join(DRIVER).exists()));
    if found || std::env::var_os("CI").is_some() {
        return false;
    }
    // Written directly to standard error: the test runner would not show the captured output of a passing test.
    let line = format!(
        "SKIPPED {test}: there is no {DRIVER} (on Debian: apt-get install chromium-driver)\n"
    );
    std::io::stderr().write_all(line.as_bytes()).is_ok()
}

impl Browser {
    pub async fn start(name: &str) -> Result<Self> {
        let http = saga_test_support::http_client();
        let port = saga_servers::free_port();
        let directory =
            std::env::temp_dir().join(format!("saga-browser-{name}-{}", std::process::id()));
        let driver = Command::new(DRIVER)
            .arg(format!("--port={port}"))
            // The browser belongs to the same process group, and is killed together with the driver.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| {
                format!("{DRIVER} cannot be started; on Debian: apt-get install chromium chromium-driver")
            })?;
        let group = driver.id();
        let profile = directory.display();
        reaper::at_end(&format!(
            "kill -9 -- -{group} 2>/dev/null; rm -rf '{profile}'"
        ));
        let mut browser = Self {
            http,
            driver,
            directory,
            session: format!("http://127.0.0.1:{port}"),
        };
        browser.session = browser.new_session().await?;
        Ok(browser)
    }

    async fn new_session(&self) -> Result<String> {
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--no-proxy-server",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ];
        let profile = format!("--user-data-dir={}", self.directory.display());
        let arguments: Vec<&str> = arguments.into_iter().chain([profile.as_str()]).collect();
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let began = Instant::now();
        loop {
            // Until the driver listens, connections are refused. Any answer is final.
            match self
                .http
                .post(format!("{}/session", self.session))
                .json(&wanted)
                .send()
                .await
            {
                Ok(answer) => {
                    let answer: Value = answer.json().await?;
                    let id = answer["value"]["sessionId"].as_str().with_context(|| {
                        format!("no Chromium (on Debian: apt-get install chromium): {answer:#}")
                    })?;
                    return Ok(format!("{}/session/{id}", self.session));
                }
                Err(error) if began.elapsed() > START_LIMIT => {
                    return Err(error).context("chromedriver does not listen");
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }

    async fn ask(&self, path: &str, body: &Value) -> Result<Value> {
        let answer = self
            .http
            .post(format!("{}{path}", self.session))
            .json(body)
            .send()
            .await?;
        let is_success = answer.status().is_success();
        let mut answer: Value = answer.json().await?;
        ensure!(is_success, "{path} {body}: {answer:#}");
        Ok(answer["value"].take())
    }

    pub async fn open(&self, url: &str) -> Result<()> {
        self.ask("/url", &json!({"url": url})).await.map(|_| ())
    }

    /// Runs a script and returns its value.
    pub async fn script(&self, script: &str) -> Result<Value> {
        self.ask("/execute/sync", &json!({"script": script, "args": []}))
            .await
    }

    async fn element(&self, selector: &str) -> Result<String> {
        let found = self
            .ask(
                "/element",
                &json!({"using": "css selector", "value": selector}),
            )
            .await?;
        match found[ELEMENT].as_str() {
            Some(id) => Ok(id.to_owned()),
            None => bail!("{selector}: {found}"),
        }
    }

    /// Clicks an element as with a mouse: a covered or unreachable element cannot be clicked.
    pub async fn click(&self, selector: &str) -> Result<()> {
        let id = self.element(selector).await?;
        self.ask(&format!("/element/{id}/click"), &json!({}))
            .await
            .map(|_| ())
    }

    /// Types text as on a keyboard, with the element in focus.
    pub async fn keys(&self, selector: &str, text: &str) -> Result<()> {
        let id = self.element(selector).await?;
        self.ask(&format!("/element/{id}/value"), &json!({"text": text}))
            .await
            .map(|_| ())
    }

    /// Runs a command of the DevTools protocol.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Result<Value> {
        self.ask(
            "/goog/cdp/execute",
            &json!({"cmd": command, "params": parameters}),
        )
        .await
    }

    /// Returns the console's messages since the last call, from warnings upward.
    pub async fn complaints(&self) -> Result<Vec<String>> {
        let said = self.ask("/se/log", &json!({"type": "browser"})).await?;
        let entries = said.as_array().context("a log")?;
        let grave = entries.iter().filter(|entry| entry["level"] != "INFO");
        Ok(grave.map(|entry| entry["message"].to_string()).collect())
    }

    pub async fn look(&self, width: u32, height: u32, scheme: &str) -> Result<()> {
        let screen = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", screen)
            .await?;
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", media).await?;
        Ok(())
    }

    /// Saves the whole page as a PNG for a person to look at.
    pub async fn screenshot(&self, path: &Path) -> Result<()> {
        let shot = self
            .devtools(
                "Page.captureScreenshot",
                json!({"captureBeyondViewport": true}),
            )
            .await?;
        let bytes = decode(shot["data"].as_str().context("a picture")?)?;
        fs::create_dir_all(path.parent().context("a directory")?)?;
        fs::write(path, bytes)?;
        Ok(())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Kills the whole process group, so that no browser outlives its driver.
        let group = format!("-{}", self.driver.id());
        Command::new("kill")
            .args(["-9", "--", &group])
            .status()
            .ok();
        self.driver.wait().ok();
        fs::remove_dir_all(&self.directory).ok();
    }
}

/// Decodes Base64, in which WebDriver sends pictures.
fn decode(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            other => bail!("{other} is not base64"),
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Ok(bytes)
}
