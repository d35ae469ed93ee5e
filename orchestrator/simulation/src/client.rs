//! Clients that start sagas: they send orders to the intake, or they produce the start themselves, which counts as
//! accepted once it is acknowledged.

use super::{cluster::Cluster, intake::Order, log::SimWriter, process::Process};
use saga_messaging::log::LogWriter;
use std::{sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::timeout};

/// The time that a client waits for an answer before it asks again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Places an order: repeats the request until it is accepted.
pub async fn place(cluster: Arc<Cluster>, order: Order) {
    let world = Arc::clone(&cluster.world);
    let who = format!("client-{}", order.accepted.number);
    let by_hand = order.starter_step.is_none() && world.dice().percent(50, "by hand", &who);
    loop {
        let accepted = if by_hand {
            produce(&cluster, &who, &order).await
        } else {
            ask(&cluster, &who, &order).await
        };
        if accepted {
            world.note(&who, format_args!("is accepted"));
            return;
        }
        let wait = world.milliseconds(200, 2_000, "asks again", &who);
        tokio::time::sleep(wait).await;
    }
}

async fn ask(cluster: &Cluster, who: &str, order: &Order) -> bool {
    let Some(intake) = cluster.an_intake(who) else {
        return false;
    };
    let (answer, answered) = oneshot::channel();
    let (asked, order) = (Arc::clone(&intake), order.clone());
    intake.process.spawn(async move {
        let accepted = asked.take_in(&order).await.is_ok();
        // The send fails if the client has given up.
        answer.send(accepted).unwrap_or_default();
    });
    matches!(timeout(PATIENCE, answered).await, Ok(Ok(true)))
}

/// Produces the start. It counts as accepted when it is acknowledged, also if the acknowledgment is lost.
async fn produce(cluster: &Cluster, who: &str, order: &Order) -> bool {
    let process = Process::new(Arc::clone(&cluster.world), who);
    let writer = SimWriter::new(&process);
    let (done, is_done) = oneshot::channel();
    let start = order.start.clone();
    process.spawn(async move {
        let delivered = writer.publish(std::slice::from_ref(&start)).await;
        done.send(delivered.is_ok()).unwrap_or_default();
    });
    let acknowledged = matches!(timeout(PATIENCE, is_done).await, Ok(Ok(true)));
    if acknowledged {
        let mut history = cluster.world.history();
        history.accepted.insert(order.saga, order.accepted.clone());
    }
    acknowledged
}
