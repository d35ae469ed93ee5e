//! Tests the HTTP API without the shell around it.

use crate::fixture::{batch, database, product, reserve};
use anyhow::Result;
use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
};
use inventory_svc::http::{App, router};
use saga_test_support::service::{ask, get};
use serde_json::{Value, json};
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

async fn put(app: &Router, path: &str, body: impl Into<Body>) -> Result<(StatusCode, Value)> {
    let request = Request::put(path).header(header::CONTENT_TYPE, "application/json");
    ask(app, request.body(body.into())?).await
}

#[tokio::test]
async fn a_product_is_made_restocked_and_read() -> Result<()> {
    let app = app(&database().await?);
    let path = format!("/stock/{}", Uuid::new_v4());
    assert_eq!(get(&app, &path).await?.0, StatusCode::NOT_FOUND);
    let (status, made) = put(&app, &path, r#"{"available": 5, "name": " Lamp "}"#).await?;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(
        (&made["available"], &made["reserved"], &made["sold"]),
        (&json!(5), &json!(0), &json!(0))
    );
    assert_eq!(made["name"], "Lamp");
    let (status, set) = put(&app, &path, r#"{"available": 0.0}"#).await?;
    assert_eq!(
        (status, &set["available"], &set["name"]),
        (StatusCode::OK, &json!(0), &json!("Lamp"))
    );
    assert_eq!(get(&app, &path).await?, (StatusCode::OK, set));
    Ok(())
}

#[tokio::test]
async fn a_bad_restock_names_the_field_and_leaves_nothing_behind() -> Result<()> {
    let app = app(&database().await?);
    let path = format!("/stock/{}", Uuid::new_v4());
    let long = format!(r#"{{"available": 1, "name": "{}"}}"#, "x".repeat(201));
    for (body, status, field) in [
        ("", 400, None),
        ("available=1", 400, None),
        ("[1]", 422, None),
        ("{}", 422, None),
        (r#"{"available": -1}"#, 422, Some("/available")),
        (r#"{"available": 1000000001}"#, 422, Some("/available")),
        (
            r#"{"available": 99999999999999999999}"#,
            422,
            Some("/available"),
        ),
        (r#"{"available": 1.5}"#, 422, Some("/available")),
        (r#"{"available": "1"}"#, 422, Some("/available")),
        (r#"{"available": 1, "name": ""}"#, 422, Some("/name")),
        (r#"{"available": 1, "name": "a\u0000b"}"#, 422, None),
        (r#"{"available": 1, "name": "a\nb"}"#, 422, Some("/name")),
        (r#"{"available": 1, "sold": 1}"#, 422, None),
        (&long, 422, Some("/name")),
    ] {
        let (answered, problem) = put(&app, &path, body.to_owned()).await?;
        assert_eq!(answered.as_u16(), status, "{body}: {problem}");
        if let Some(field) = field {
            assert_eq!(problem["errors"][0]["field"], field, "{body}: {problem}");
        }
    }
    assert_eq!(
        put(&app, &path, vec![b'"', 0xff, b'"']).await?.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        put(&app, "/stock/7", r#"{"available": 1}"#).await?.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(get(&app, &path).await?.0, StatusCode::NOT_FOUND);
    assert_eq!(get(&app, "/stock").await?.1, json!({"items": []}));
    Ok(())
}

#[tokio::test]
async fn stock_is_listed_page_by_page() -> Result<()> {
    let pool = database().await?;
    let app = app(&pool);
    let mut products = Vec::new();
    for _ in 0..5 {
        products.push(product(&pool, 1).await?.to_string());
    }
    products.sort();
    let (mut path, mut seen) = ("/stock?limit=2".to_owned(), Vec::new());
    loop {
        let (status, page) = get(&app, &path).await?;
        assert_eq!(status, StatusCode::OK, "{page}");
        let items = page["items"].as_array().expect("items");
        assert!(items.len() <= 2);
        seen.extend(
            items
                .iter()
                .filter_map(|item| item["productId"].as_str().map(str::to_owned)),
        );
        let Some(cursor) = page["nextCursor"].as_str() else {
            break;
        };
        path = format!("/stock?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, products);
    for bad in [
        "limit=0",
        "limit=201",
        "limit=x",
        "cursor=x",
        "color=red",
        "limit=-1",
    ] {
        let (status, problem) = get(&app, &format!("/stock?{bad}")).await?;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}: {problem}");
        let name = bad.split('=').next().unwrap_or_default();
        assert_eq!(problem["errors"][0]["field"], name, "{bad}: {problem}");
    }
    Ok(())
}

#[tokio::test]
async fn an_order_s_reservations_can_be_read() -> Result<()> {
    let pool = database().await?;
    let (app, item, order) = (app(&pool), product(&pool, 3).await?, Uuid::new_v4());
    let path = format!("/reservations/{order}");
    assert_eq!(get(&app, &path).await?.0, StatusCode::NOT_FOUND);
    batch(&pool, &[reserve(order, &[(item, 2)])]).await?;
    let (status, body) = get(&app, &path).await?;
    assert_eq!((status, &body["orderId"]), (StatusCode::OK, &json!(order)));
    let held = &body["items"][0];
    assert_eq!(
        (&held["productId"], &held["quantity"], &held["state"]),
        (&json!(item), &json!(2), &json!("reserved"))
    );
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
    assert_eq!(
        paths,
        ["/reservations/{orderId}", "/stock", "/stock/{productId}"]
    );
    for (path, operation) in [
        ("/stock", "get"),
        ("/stock/{productId}", "get"),
        ("/stock/{productId}", "put"),
    ] {
        let responses = &api["paths"][path][operation]["responses"];
        assert!(
            responses["503"].is_object() && responses["400"].is_object(),
            "{operation} {path}"
        );
    }
    assert!(api["components"]["schemas"]["Stock"].is_object());
    Ok(())
}
