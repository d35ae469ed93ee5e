//! Client of the orchestrator's HTTP API: returns typed answers, and problems as [`Failure`]s.

use crate::failure::{Failure, Problem};
use reqwest::{
    Method, Response, Url,
    header::{CONTENT_TYPE, HeaderMap},
};
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;

/// Time limit of a request. Longer than the orchestrator waits for an action's decision.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
}

impl Client {
    pub fn new(base: Url, token: Option<String>) -> Result<Self, Failure> {
        // `Err` means that a provider was installed before.
        let _installed_before = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .user_agent(concat!("sagactl/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Failure::Usage(format!("no HTTP client can be made: {error}")))?;
        Ok(Self { http, base, token })
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, HeaderMap::new(), None::<&()>)
            .await
    }

    /// Sends a `GET` with a query. Fields of the query that are `None` are left out.
    pub async fn get_with<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &(impl Serialize + Sync),
    ) -> Result<T, Failure> {
        let query = serde_urlencoded::to_string(query)
            .map_err(|error| Failure::Usage(format!("no query can be made: {error}")))?;
        self.get(&format!("{path}?{query}")).await
    }

    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        headers: HeaderMap,
        body: &(impl Serialize + Sync),
    ) -> Result<T, Failure> {
        self.call(Method::POST, path, headers, Some(body)).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, Failure> {
        let url = self.url(path);
        let mut request = self.http.request(method, &url).headers(headers);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let unreachable = |source| Failure::Unreachable {
            url: self.base.to_string(),
            source,
        };
        let response = request.send().await.map_err(unreachable)?;
        read(url, response).await
    }

    /// Appends a path to the base URL. A base may have a path of its own, as behind a gateway.
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base.as_str().trim_end_matches('/'))
    }
}

async fn read<T: DeserializeOwned>(url: String, response: Response) -> Result<T, Failure> {
    let status = response.status();
    let is_problem = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem+json"));
    let body = match response.bytes().await {
        Ok(body) => body,
        Err(source) => return Err(Failure::Unreachable { url, source }),
    };
    let not_understood = |why: String| Failure::Unintelligible {
        url,
        status: status.as_u16(),
        why,
    };
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| not_understood(error.to_string()));
    }
    if !is_problem {
        return Err(not_understood("no problem document".to_owned()));
    }
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => Err(Failure::Answered(Box::new(problem))),
        Err(error) => Err(not_understood(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::JoinHandle,
    };

    /// Starts a server that answers one request with `answer`, and returns the request.
    async fn server(answer: &'static str) -> (Url, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/gateway/", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = String::new();
            while !request.contains("\r\n\r\n") {
                let mut part = [0; 4_096];
                let length = stream.read(&mut part).await.unwrap();
                request.push_str(&String::from_utf8_lossy(&part[..length]));
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            request.to_lowercase()
        });
        (Url::parse(&url).unwrap(), asked)
    }

    async fn get(answer: &'static str, token: Option<&str>) -> (Result<Value, Failure>, String) {
        let (url, asked) = server(answer).await;
        let client = Client::new(url, token.map(str::to_owned)).unwrap();
        let query = [("status", "parked")];
        let found = client.get_with("/sagas", &query).await;
        (found, asked.await.unwrap())
    }

    #[tokio::test]
    async fn the_token_and_the_query_are_sent_below_the_bases_own_path() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{\"a\": 1}";
        let (found, asked) = get(ok, Some("secret")).await;
        assert_eq!(found.unwrap(), json!({"a": 1}));
        assert!(
            asked.starts_with("get /gateway/sagas?status=parked http"),
            "{asked}"
        );
        assert!(asked.contains("authorization: bearer secret"), "{asked}");
        let (_, asked) = get(ok, None).await;
        assert!(!asked.contains("authorization"), "{asked}");
    }

    #[tokio::test]
    async fn a_problem_is_printed_with_its_detail_and_a_hint() {
        let refused = "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/problem+json\r\ncontent-length: 48\r\n\r\n\
                       {\"status\": 401, \"detail\": \"not the right token\"}";
        let (found, _) = get(refused, None).await;
        let failure = found.unwrap_err();
        assert_eq!(failure.exit_status(), crate::failure::UNUSABLE);
        let text = failure.to_string();
        assert!(
            text.contains("not the right token") && text.contains("--token-file"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn an_answer_of_another_server_is_unintelligible() {
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>",
            "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n",
        ] {
            let (found, _) = get(answer, None).await;
            assert!(
                matches!(found, Err(Failure::Unintelligible { .. })),
                "{found:?}"
            );
        }
    }
}
