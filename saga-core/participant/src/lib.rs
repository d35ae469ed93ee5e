#![doc = include_str!("../README.md")]

mod barrier;
pub mod batch;
mod builder;
mod calls;
mod command;
mod config;
mod core;
pub mod external;
mod fold;
mod guard;
mod handler;
pub mod inbox;
mod intake;
mod intent;
mod labels;
mod payload;
mod per_command;
mod processor;
mod reply;
mod router;
mod run;
mod settings;
#[doc(hidden)]
pub mod storage;
mod store;
mod throttle;
mod topics;
mod upkeep;

pub use builder::{Approval, ApprovalError, Participant, RunError};
pub use command::{Command, INVALID_PAYLOAD, UNKNOWN_COMMAND};
pub use handler::{Answer, Failure, HandlerError};
pub use router::{CallOutside, Handler, IntoAnswer, Router};
pub use settings::{ParticipantSettings, ParticipantSettingsError, TopicExpectations};

pub use saga_core::{
    ids::SagaId,
    message::{Direction, Fault, Trace},
};
pub use saga_messaging::{kafka::KafkaConfig, migrations};
pub use tokio_util::sync::CancellationToken;

use batch::Batch;
use config::ParticipantConfig;
use external::{CallLimits, CallOutcome, RawCalls, RawSettlement};
use handler::{RawBatchHandler, RawCommandHandler};
use per_command::PerCommand;
use processor::CommandProcessor;
use upkeep::BarrierUpkeep;

/// The parts of the library, for the simulator and for tests. They change without notice.
#[doc(hidden)]
pub mod internal {
    pub use crate::{
        barrier::RowKey,
        batch::Batch,
        builder::IntoRawHandler,
        calls::{CallResult, Job, OpenCalls, PendingReplies, SweepResult},
        config::ParticipantConfig,
        external::{Calls, RawCalls, RawSettlement},
        handler::{RawBatchHandler, RawCommandHandler},
        per_command::PerCommand,
        processor::CommandProcessor,
        run::start as run,
        upkeep::BarrierUpkeep,
    };
}
