//! Tests the HTTP shell with a real listener and a real client.

use axum::{
    Json,
    body::Body,
    http::{HeaderMap, StatusCode},
    response::sse::{Event, Sse},
};
use futures_util::{StreamExt, stream};
use reqwest::{Client, Method, RequestBuilder, Response};

use saga_service::{
    health::HealthRegistry,
    http::{HttpConfig, Problem, RequestContext, ValidJson, ValidPath, ValidQuery, serve},
    lifecycle::Shutdown,
    telemetry::{self, LogConfig, LogFormat},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

const BODY_LIMIT_BYTES: usize = 10_000;
const ORIGIN: &str = "http://localhost:3001";
/// Far above the time that anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    quantity: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    limit: Option<u32>,
}

#[utoipa::path(get, path = "/orders/{id}", params(("id" = Uuid, Path)), responses((status = 200)))]
async fn get_order(
    ValidPath(id): ValidPath<Uuid>,
    ValidQuery(page): ValidQuery<Page>,
) -> Json<Value> {
    Json(json!({ "id": id, "limit": page.limit }))
}

#[utoipa::path(post, path = "/orders", responses((status = 200)))]
async fn post_order(context: RequestContext, ValidJson(order): ValidJson<Order>) -> Json<Value> {
    Json(json!({
        "quantity": order.quantity,
        "correlationId": context.correlation_id,
        "traceparent": context.traceparent,
    }))
}

#[utoipa::path(get, path = "/panic", responses((status = 200)))]
async fn panic() -> StatusCode {
    panic!("secret detail")
}

#[utoipa::path(get, path = "/slow", responses((status = 200)))]
async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_millis(300)).await;
    "done"
}

#[utoipa::path(get, path = "/stuck", responses((status = 200)))]
async fn stuck() -> StatusCode {
    std::future::pending().await
}

#[utoipa::path(get, path = "/busy", responses((status = 503)))]
async fn busy() -> Problem {
    Problem::unavailable("the backlog is too long", 7)
}

#[utoipa::path(get, path = "/events", responses((status = 200)))]
async fn events() -> Sse<impl futures_util::Stream<Item = Result<Event, Infallible>>> {
    let first = stream::once(async { Ok(Event::default().data("first")) });
    Sse::new(first.chain(stream::pending()))
}

/// An event stream that never sends an event.
#[utoipa::path(get, path = "/silence", responses((status = 200)))]
async fn silence() -> Sse<impl futures_util::Stream<Item = Result<Event, Infallible>>> {
    Sse::new(stream::pending())
}

struct Server {
    address: SocketAddr,
    shutdown: Shutdown,
    serving: JoinHandle<anyhow::Result<()>>,
    client: Client,
}

impl Server {
    async fn start(health: HealthRegistry) -> Self {
        Self::start_with(health, 10_000).await
    }

    async fn start_with(health: HealthRegistry, request_timeout_ms: u64) -> Self {
        let log = LogConfig {
            format: LogFormat::Human,
            filter: "warn".to_owned(),
        };
        telemetry::init(&log).expect("telemetry");
        telemetry::init(&log).expect("a second time does no harm");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("address");
        let config = HttpConfig {
            listen: address,
            allowed_hosts: Vec::new(),
            body_limit_bytes: BODY_LIMIT_BYTES,
            request_timeout_ms,
            cors_origins: vec![ORIGIN.to_owned()],
        };
        let api = OpenApiRouter::new()
            .routes(routes!(get_order))
            .routes(routes!(post_order))
            .routes(routes!(panic))
            .routes(routes!(slow))
            .routes(routes!(stuck))
            .routes(routes!(busy))
            .routes(routes!(events))
            .routes(routes!(silence));
        let shutdown = Shutdown::new();
        let stop = shutdown.clone();
        let serving =
            tokio::spawn(async move { serve(&config, listener, api, "Shop", health, stop).await });
        Self {
            address,
            shutdown,
            serving,
            client: saga_test_support::http_client(),
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("http://{}{path}", self.address))
            .timeout(PATIENCE)
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path)
            .send()
            .await
            .expect("an answer")
    }

    fn post(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.request(Method::POST, "/orders")
            .header("content-type", "application/json")
            .body(body)
    }

    async fn ended(self) {
        let ended = tokio::time::timeout(PATIENCE, self.serving).await;
        ended
            .expect("the server ends in time")
            .expect("no panic")
            .expect("no error");
    }
}

async fn plain() -> Server {
    Server::start(HealthRegistry::default()).await
}

/// Checks that the response is a problem with this status, and returns its members.
async fn problem(response: Response, status: u16) -> Value {
    let headers = response.headers().clone();
    let found = response.status().as_u16();
    let text = response.text().await.expect("body");
    assert_eq!(found, status, "{text}");
    assert_eq!(
        headers["content-type"], "application/problem+json",
        "{text}"
    );
    assert!(headers.contains_key("x-correlation-id"), "{text}");
    let problem: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(problem["status"], status);
    for member in ["type", "title", "detail"] {
        assert!(
            problem[member]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{member}: {text}"
        );
    }
    problem
}

#[tokio::test]
async fn bad_requests_get_problems_that_name_the_field() {
    let server = plain().await;
    let send = async |body: &'static str| server.post(body).send().await.expect("answer");
    assert_eq!(send(r#"{"quantity":1}"#).await.status(), 200);
    problem(send("{").await, 400).await;
    let refused = problem(send(r#"{"quantity":"x"}"#).await, 422).await;
    assert_eq!(refused["errors"][0]["field"], "/quantity");
    let not_json = server.request(Method::POST, "/orders").body("quantity=1");
    problem(not_json.send().await.expect("answer"), 415).await;
    let refused = problem(server.get("/orders/not-a-uuid").await, 400).await;
    assert!(
        refused["detail"].as_str().expect("detail").contains("UUID"),
        "{refused}"
    );
    let path = format!("/orders/{}?limit=x", Uuid::nil());
    let refused = problem(server.get(&path).await, 400).await;
    assert_eq!(refused["errors"][0]["field"], "limit");
    problem(server.get("/orders/%ff").await, 400).await;
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_problems() {
    let server = plain().await;
    let missing = problem(server.get("/nothing").await, 404).await;
    assert!(
        missing["detail"]
            .as_str()
            .expect("detail")
            .contains("/nothing")
    );
    let response = server
        .request(Method::DELETE, "/orders")
        .send()
        .await
        .expect("answer");
    let allow: HeaderMap = response.headers().clone();
    assert_eq!(allow["allow"], "POST");
    problem(response, 405).await;
    let busy = server.get("/busy").await;
    assert_eq!(busy.headers()["retry-after"], "7");
    assert_eq!(problem(busy, 503).await["retryAfterSeconds"], 7);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_and_the_client_sees_why() {
    let server = plain().await;
    let large = vec![b' '; 10_000_000];
    let refused = problem(
        server.post(large.clone()).send().await.expect("an answer"),
        413,
    )
    .await;
    assert!(
        refused["detail"]
            .as_str()
            .expect("detail")
            .contains("10000"),
        "{refused}"
    );
    let chunks = stream::iter(
        large
            .chunks(50_000)
            .map(|chunk| Ok::<_, Infallible>(chunk.to_vec()))
            .collect::<Vec<_>>(),
    );
    let response = server
        .post(reqwest::Body::wrap_stream(chunks))
        .send()
        .await
        .expect("an answer");
    problem(response, 413).await;
    assert_eq!(
        server
            .post(r#"{"quantity":1}"#)
            .send()
            .await
            .expect("answer")
            .status(),
        200
    );
}

#[tokio::test]
async fn a_panic_and_a_stuck_handler_cost_only_their_request() {
    let server = Server::start_with(HealthRegistry::default(), 200).await;
    let failed = problem(server.get("/panic").await, 500).await;
    assert!(!failed.to_string().contains("secret detail"));
    let late = server.get("/stuck").await;
    assert!(late.headers().contains_key("retry-after"));
    problem(late, 503).await;
    assert_eq!(server.get("/health/live").await.status(), 200);
}

#[tokio::test]
async fn correlation_and_trace_are_propagated() {
    let server = plain().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let response = server
        .post(r#"{"quantity":1}"#)
        .header("x-correlation-id", "mine")
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
        .send()
        .await
        .expect("answer");
    assert_eq!(response.headers()["x-correlation-id"], "mine");
    let seen: Value = response.json().await.expect("JSON");
    assert_eq!(seen["correlationId"], "mine");
    assert!(
        seen["traceparent"]
            .as_str()
            .expect("traceparent")
            .contains(trace)
    );
    let made = server.get("/nothing").await.headers()["x-correlation-id"].clone();
    Uuid::parse_str(made.to_str().expect("text")).expect("a new id");
}

#[tokio::test]
async fn health_names_the_dependency_that_is_down() {
    let mut health = HealthRegistry::default();
    health.register("kafka", async || Ok(()));
    let server = Server::start(health.clone()).await;
    let up: Value = server.get("/health").await.json().await.expect("JSON");
    assert_eq!(up["status"], "up");
    health.register("postgres", async || Err("connection refused".to_owned()));
    health.register("stuck", async || std::future::pending().await);
    let server = Server::start(health).await;
    let response = server.get("/health").await;
    assert_eq!(response.status(), 503);
    let down: Value = response.json().await.expect("JSON");
    assert_eq!(down["status"], "down");
    let states: Vec<_> = down["dependencies"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| (one["name"].as_str(), one["status"].as_str()))
        .collect();
    assert_eq!(
        states,
        [
            (Some("kafka"), Some("up")),
            (Some("postgres"), Some("down")),
            (Some("stuck"), Some("down"))
        ]
    );
    assert_eq!(down["dependencies"][1]["detail"], "connection refused");
    assert!(
        down["dependencies"][2]["detail"]
            .as_str()
            .expect("detail")
            .contains("no answer")
    );
    assert!(
        down["dependencies"][2]["durationMs"]
            .as_u64()
            .expect("number")
            >= 2000
    );
    assert_eq!(server.get("/health/live").await.status(), 200);
}

#[tokio::test]
async fn readiness_requires_every_part_to_be_ready_and_no_drain() {
    let mut health = HealthRegistry::default();
    let readiness = health.readiness("kafka");
    let server = Server::start(health).await;
    let starting = server.get("/health/ready").await;
    assert_eq!(starting.status(), 503);
    let starting: Value = starting.json().await.expect("JSON");
    assert_eq!(
        starting,
        json!({"status": "starting", "waitingFor": [{"name": "kafka"}]})
    );
    readiness.ready();
    assert_eq!(server.get("/health/ready").await.status(), 200);
    readiness.waits_for(Vec::new());
    assert_eq!(server.get("/health/ready").await.status(), 503);
}

#[tokio::test]
async fn metrics_know_the_route_and_not_the_path() {
    let server = plain().await;
    let id = Uuid::new_v4();
    server.get(&format!("/orders/{id}")).await;
    server.get(&format!("/nothing/{id}")).await;
    let text = server.get("/metrics").await.text().await.expect("text");
    for part in [
        r#"method="GET",route="/orders/{id}",status="200""#,
        r#"method="GET",route="unmatched",status="404""#,
        "http_request_duration_seconds_bucket",
        "process_resident_memory_bytes ",
        "process_open_fds ",
        "process_uptime_seconds ",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains(&id.to_string()), "{text}");
}

#[tokio::test]
async fn docs_are_served_from_the_binary() {
    let server = plain().await;
    let openapi: Value = server
        .get("/api/openapi.json")
        .await
        .json()
        .await
        .expect("JSON");
    assert_eq!(openapi["info"]["title"], "Shop");
    for path in [
        "/orders",
        "/orders/{id}",
        "/health",
        "/health/ready",
        "/metrics",
    ] {
        assert!(openapi["paths"][path].is_object(), "{path}");
    }
    let page = server.get("/api/docs").await;
    assert_eq!(page.status(), 200);
    let page = page.text().await.expect("text");
    assert!(page.contains("swagger-ui"), "{page}");
    assert!(
        !page.contains("http://") && !page.contains("https://"),
        "nothing is fetched from elsewhere: {page}"
    );
    assert_eq!(
        server.get("/api/docs/swagger-ui-bundle.js").await.status(),
        200
    );
    let setup = server.get("/api/docs/swagger-initializer.js").await;
    let setup = setup.text().await.expect("text");
    assert!(setup.contains("/api/openapi.json"), "{setup}");
    assert!(
        setup.contains(r#""validatorUrl": "none""#),
        "nothing is sent elsewhere: {setup}"
    );
}

#[tokio::test]
async fn only_configured_origins_may_call_from_a_browser() {
    let server = plain().await;
    let preflight = async |origin: &'static str| {
        let request = server.request(Method::OPTIONS, "/orders");
        let request = request
            .header("origin", origin)
            .header("access-control-request-method", "POST");
        let response = request
            .header("access-control-request-headers", "content-type")
            .send()
            .await;
        response
            .expect("answer")
            .headers()
            .get("access-control-allow-origin")
            .cloned()
    };
    assert_eq!(preflight(ORIGIN).await.expect("allowed"), ORIGIN);
    assert_eq!(preflight("http://elsewhere").await, None);
    let failed = server
        .request(Method::GET, "/nothing")
        .header("origin", ORIGIN)
        .send()
        .await
        .expect("answer");
    assert_eq!(
        failed.headers()["access-control-allow-origin"],
        ORIGIN,
        "a page can read errors too"
    );
}

#[tokio::test]
async fn a_page_of_another_origin_reads_and_changes_nothing() {
    let server = plain().await;
    let ask = async |method: Method, headers: &[(&str, &str)]| {
        let request = server
            .request(method, "/orders")
            .json(&json!({"quantity": 1}));
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        let response = request.send().await.expect("answer");
        assert!(response.headers().contains_key("x-correlation-id"));
        let status = response.status().as_u16();
        let problem: Value = response.json().await.expect("JSON");
        (
            status,
            problem["type"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let own = format!("http://{}", server.address);
    for headers in [&[][..], &[("origin", own.as_str())], &[("origin", ORIGIN)]] {
        assert_eq!(ask(Method::POST, headers).await.0, 200, "{headers:?}");
    }
    let misdirected = (421, "/problems/misdirected-request".to_owned());
    let foreign = (403, "/problems/foreign-origin".to_owned());
    let host = [("host", "evil.example:3001")];
    assert_eq!(ask(Method::GET, &host).await, misdirected);
    assert_eq!(ask(Method::POST, &host).await, misdirected);
    assert_eq!(
        ask(Method::POST, &[("origin", "http://evil.example")]).await,
        foreign
    );
    assert_eq!(ask(Method::POST, &[("origin", "null")]).await, foreign);
    assert_eq!(
        ask(Method::POST, &[("sec-fetch-site", "cross-site")]).await,
        foreign
    );
}

#[tokio::test]
async fn a_consumer_that_cannot_read_makes_the_service_unhealthy_in_its_own_words() {
    let mut health = HealthRegistry::default();
    let blocked = Arc::new(Mutex::new(None));
    let looked_at = Arc::clone(&blocked);
    health.watch("saga.inputs", move || {
        let trouble = looked_at.lock().expect("not poisoned").clone();
        (Duration::ZERO, trouble)
    });
    let server = Server::start(health).await;
    let why = "3 records of saga.inputs/0 cannot be read: somebody else's transaction is open";
    for (trouble, status, detail) in [
        (None, 200, Value::Null),
        (Some(why.to_owned()), 503, json!(why)),
        (None, 200, Value::Null),
    ] {
        *blocked.lock().expect("not poisoned") = trouble;
        let response = server.get("/health").await;
        assert_eq!(response.status(), status);
        let body: Value = response.json().await.expect("JSON");
        let found = body["dependencies"].as_array().expect("dependencies");
        let work = found
            .iter()
            .find(|one| one["name"] == "work on saga.inputs");
        assert_eq!(work.expect("the work")["detail"], detail);
    }
}

#[tokio::test]
async fn an_event_stream_passes_through_proxies_from_its_first_byte() {
    let server = plain().await;
    let response = server.get("/silence").await;
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    assert_eq!(
        response.headers()["cache-control"],
        "no-cache, no-transform"
    );
    let first = response.bytes_stream().next().await.expect("a byte");
    assert_eq!(&first.expect("no error")[..], b":\n\n");
}

#[tokio::test]
async fn the_soft_stop_answers_running_requests_and_closes_idle_connections() {
    let server = plain().await;
    // One connection that sends nothing, one kept alive, one with an event stream.
    let _silent = TcpStream::connect(server.address).await.expect("connect");
    let mut kept = TcpStream::connect(server.address).await.expect("connect");
    kept.write_all(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .expect("write");
    let mut buffer = [0; 1024];
    assert!(kept.read(&mut buffer).await.expect("read") > 0);
    let mut events = server.get("/events").await.bytes_stream();
    let first = events.next().await.expect("a byte").expect("no error");
    assert_eq!(&first[..], b":\n\n");
    let event = events.next().await.expect("an event").expect("no error");
    assert!(event.starts_with(b"data: first"));
    let in_hand = server.request(Method::GET, "/slow").send();
    let stop = async {
        // The request is accepted once its connection counts among the open files. A short pause is enough here,
        // because a request that came too late would fail the test and not pass it.
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.shutdown.soft.cancel();
    };
    let (answer, ()) = tokio::join!(in_hand, stop);
    assert_eq!(
        answer.expect("an answer").text().await.expect("text"),
        "done"
    );
    assert!(
        events.next().await.is_none_or(|rest| rest.is_err()),
        "the stream has ended"
    );
    server.ended().await;
}

#[tokio::test]
async fn the_hard_stop_waits_for_nothing() {
    let server = plain().await;
    let (address, shutdown) = (server.address, server.shutdown.clone());
    let stuck = tokio::spawn(async move {
        saga_test_support::http_client()
            .get(format!("http://{address}/stuck"))
            .send()
            .await
    });
    while !stuck.is_finished() {
        // Level-triggered: the stop must end the request at any point that it has reached.
        tokio::time::sleep(Duration::from_millis(50)).await;
        shutdown.soft.cancel();
        shutdown.hard.cancel();
    }
    server.ended().await;
}

#[tokio::test]
async fn a_router_can_be_asked_without_a_socket() {
    use tower::ServiceExt;
    let config = HttpConfig {
        listen: "127.0.0.1:0".parse().expect("address"),
        allowed_hosts: Vec::new(),
        body_limit_bytes: 10,
        request_timeout_ms: 1000,
        cors_origins: Vec::new(),
    };
    let api = OpenApiRouter::new().routes(routes!(get_order));
    let health = HealthRegistry::default();
    let app =
        saga_service::http::router(&config, api, "Shop", health, &Shutdown::new()).expect("router");
    let request = axum::http::Request::get("/orders/x")
        .header("host", "localhost")
        .body(Body::empty())
        .expect("request");
    assert_eq!(app.oneshot(request).await.expect("answer").status(), 400);
}
