//! Tests the HTTP API without the shell around it.

use crate::fixture::{batch, call, calls, charge, database};
use anyhow::Result;
use axum::{Router, http::StatusCode};
use payment_svc::http::{App, router};
use saga_test_support::service::get;
use serde_json::json;
use sqlx::PgPool;
use std::sync::Arc;
use uuid::Uuid;

fn app(pool: &PgPool) -> Router {
    let app = App {
        pool: pool.clone(),
        reporting: pool.clone(),
    };
    router(Arc::new(app)).split_for_parts().0
}

#[tokio::test]
async fn a_payment_shows_its_amount_and_history() -> Result<()> {
    let pool = database().await?;
    let (app, calls, order) = (app(&pool), calls(&pool, &json!([]))?, Uuid::new_v4());
    let path = format!("/payments/{order}");
    assert_eq!(get(&app, &path).await?.0, StatusCode::NOT_FOUND);
    let pay = charge(order, 1_050);
    batch(&pool, std::slice::from_ref(&pay)).await?;
    call(&pool, &calls, "key", &pay).await?;
    let (status, body) = get(&app, &path).await?;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(
        (&body["orderId"], &body["status"]),
        (&json!(order), &json!("charged"))
    );
    assert_eq!(
        (&body["amount"], &body["amountMinor"]),
        (&json!("10.50"), &json!(1_050))
    );
    assert!(body["gatewayReference"].is_string() && body["reason"].is_null());
    let history = body["history"].as_array().expect("history");
    assert_eq!(history.len(), 2);
    assert_eq!(
        (&history[1]["operation"], &history[1]["outcome"]),
        (&json!("charge"), &json!("succeeded"))
    );
    assert_eq!(history[1]["reference"], body["gatewayReference"]);
    Ok(())
}

#[tokio::test]
async fn a_declined_payment_shows_its_reason() -> Result<()> {
    let pool = database().await?;
    let (app, calls, order) = (app(&pool), calls(&pool, &json!([]))?, Uuid::new_v4());
    let pay = charge(order, 100_001);
    batch(&pool, std::slice::from_ref(&pay)).await?;
    call(&pool, &calls, "key", &pay).await?;
    let (_, body) = get(&app, &format!("/payments/{order}")).await?;
    assert_eq!(
        (&body["status"], &body["reason"]["code"]),
        (&json!("declined"), &json!("payment_declined"))
    );
    Ok(())
}

#[tokio::test]
async fn bad_requests_are_problems_that_name_the_parameter() -> Result<()> {
    let app = app(&database().await?);
    assert_eq!(get(&app, "/payments/7").await?.0, StatusCode::BAD_REQUEST);
    assert_eq!(
        get(&app, "/payments").await?,
        (StatusCode::OK, json!({"items": []}))
    );
    for bad in ["limit=0", "limit=101", "limit=x", "cursor=x", "color=red"] {
        let (status, problem) = get(&app, &format!("/payments?{bad}")).await?;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}: {problem}");
        let name = bad.split('=').next().unwrap_or_default();
        assert_eq!(problem["errors"][0]["field"], name, "{bad}: {problem}");
    }
    Ok(())
}

#[tokio::test]
async fn the_api_describes_every_path() -> Result<()> {
    let pool = PgPool::connect_lazy("postgres://nobody@127.0.0.1:1/none")?;
    let app = App {
        pool: pool.clone(),
        reporting: pool,
    };
    let api = serde_json::to_value(router(Arc::new(app)).split_for_parts().1)?;
    let paths: Vec<&String> = api["paths"].as_object().expect("paths").keys().collect();
    assert_eq!(paths, ["/payments", "/payments/{orderId}"]);
    let schemas = &api["components"]["schemas"];
    assert!(schemas["PaymentView"].is_object() && schemas["Problem"].is_object());
    Ok(())
}
