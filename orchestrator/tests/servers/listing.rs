//! Queries of the API.

use crate::fixture::Database;
use orchestrator::store::listing::{self, Filter};

#[tokio::test]
async fn live_and_ended_sagas_are_listed_newest_first_page_by_page() {
    let database = Database::new().await;
    let mut ids = Vec::new();
    for ended in [true, false, true, false] {
        let (saga, command) = database.started().await;
        if ended {
            database.run_to_end(vec![command]).await;
        }
        ids.push(saga.0);
    }
    ids.reverse();
    let pool = database.store.reporting();
    let all = listing::list(pool, &Filter::default(), 10).await.unwrap();
    assert_eq!(all.iter().map(|line| line.id).collect::<Vec<_>>(), ids);
    let page = Filter {
        before: Some(ids[1]),
        ..Filter::default()
    };
    let rest = listing::list(pool, &page, 1).await.unwrap();
    assert_eq!(
        rest.iter().map(|line| line.id).collect::<Vec<_>>(),
        [ids[2]]
    );
    for (filter, expected) in [
        (
            Filter {
                status: Some("completed".to_owned()),
                ..Filter::default()
            },
            2,
        ),
        (
            Filter {
                waiting_on: Some("inventory".to_owned()),
                ..Filter::default()
            },
            2,
        ),
        (
            Filter {
                business_key: Some(format!("key-{}", ids[1])),
                ..Filter::default()
            },
            1,
        ),
        (
            Filter {
                definition: Some("another".to_owned()),
                ..Filter::default()
            },
            0,
        ),
    ] {
        assert_eq!(
            listing::list(pool, &filter, 10).await.unwrap().len(),
            expected,
            "{filter:?}"
        );
    }
    let counts = listing::count_live(pool, None).await.unwrap().by_status;
    assert_eq!(counts, [("running".to_owned(), 2)]);
    assert_eq!(listing::live_by_waiting(pool).await.unwrap().len(), 1);
}

#[tokio::test]
async fn one_saga_is_found_live_and_ended() {
    let database = Database::new().await;
    let (saga, command) = database.started().await;
    let pool = database.store.reporting();
    assert!(
        listing::find(pool, saga)
            .await
            .unwrap()
            .unwrap()
            .ended_at
            .is_none()
    );
    database.run_to_end(vec![command]).await;
    assert!(
        listing::find(pool, saga)
            .await
            .unwrap()
            .unwrap()
            .ended_at
            .is_some()
    );
}
