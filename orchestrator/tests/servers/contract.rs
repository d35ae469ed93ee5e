//! Runs the contract of the engine's store on Postgres. The simulated store passes the same contract.

use crate::fixture::Database;
use async_trait::async_trait;
use orchestrator::{
    engine::settings::Participants,
    registry::Source,
    store::{PgStore, definition},
};
use saga_core::definition::SagaDefinition;
use saga_simulation::{saga_store_contract, store_contract::SagaBench};

struct Postgres;

#[async_trait]
impl SagaBench for Postgres {
    type Store = PgStore;

    async fn store(&self, of: &SagaDefinition) -> PgStore {
        let store = Database::new().await.store;
        let source = Source {
            file: "contract.yaml".to_owned(),
            definition: of.clone(),
        };
        let nobody = Participants::default();
        definition::register(store.pool(), &[source], &nobody)
            .await
            .unwrap();
        store
    }
}

saga_store_contract!(Postgres, #[tokio::test]);
