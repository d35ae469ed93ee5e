//! Handlers of single commands, found by the command's type.

use crate::{Answer, Command, Failure, RawCommandHandler, command};
use async_trait::async_trait;
use saga_core::message;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::PgConnection;
use std::{collections::HashMap, marker::PhantomData, pin::Pin};

/// The value that a handler returns to have an external call made after the commit; see
/// [`external`](crate::external).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallOutside;

/// A value that answers a command: anything that serializes, or [`CallOutside`].
pub trait IntoAnswer {
    fn into_answer(self) -> Result<Answer, Failure>;
}

impl<R: Serialize> IntoAnswer for R {
    fn into_answer(self) -> Result<Answer, Failure> {
        Answer::success(self)
    }
}

impl IntoAnswer for CallOutside {
    fn into_answer(self) -> Result<Answer, Failure> {
        Ok(Answer::CallOutside)
    }
}

/// Marks a handler without state.
pub struct Plain;
/// Marks a handler whose first argument is the participant's state.
pub struct WithState;

/// An async function that handles the commands of one type.
///
/// It is implemented for `async fn(&mut PgConnection, Command<P>) -> Result<R, Failure>`, and for the same with the
/// participant's state as first argument: `async fn(&S, &mut PgConnection, Command<P>) -> Result<R, Failure>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle commands",
    note = "a handler is `async fn(&mut PgConnection, Command<P>) -> Result<R, Failure>`, with `&State` before it if the participant has state"
)]
pub trait Handler<'a, S, P, R, Kind>: Send + Sync + 'static {
    type Future: Future<Output = Result<R, Failure>> + Send + 'a;

    fn call(&self, state: &'a S, tx: &'a mut PgConnection, command: Command<P>) -> Self::Future;
}

impl<'a, S, P, R, F, Fut> Handler<'a, S, P, R, Plain> for F
where
    F: Fn(&'a mut PgConnection, Command<P>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, Failure>> + Send + 'a,
{
    type Future = Fut;

    fn call(&self, _: &'a S, tx: &'a mut PgConnection, command: Command<P>) -> Fut {
        self(tx, command)
    }
}

impl<'a, S: 'a, P, R, F, Fut> Handler<'a, S, P, R, WithState> for F
where
    F: Fn(&'a S, &'a mut PgConnection, Command<P>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, Failure>> + Send + 'a,
{
    type Future = Fut;

    fn call(&self, state: &'a S, tx: &'a mut PgConnection, command: Command<P>) -> Fut {
        self(state, tx, command)
    }
}

type Handling<'a> = Pin<Box<dyn Future<Output = Result<Answer, Failure>> + Send + 'a>>;

/// A handler whose payload and result are erased.
trait Route<S>: Send + Sync {
    fn handle<'a>(
        &'a self,
        state: &'a S,
        tx: &'a mut PgConnection,
        command: &'a message::Command,
    ) -> Handling<'a>;
}

struct Typed<H, P, R, Kind> {
    handler: H,
    types: PhantomData<fn(P, R, Kind)>,
}

impl<S, H, P, R, Kind> Route<S> for Typed<H, P, R, Kind>
where
    S: Sync,
    H: for<'a> Handler<'a, S, P, R, Kind>,
    P: DeserializeOwned + Send,
    R: IntoAnswer,
{
    fn handle<'a>(
        &'a self,
        state: &'a S,
        tx: &'a mut PgConnection,
        raw: &'a message::Command,
    ) -> Handling<'a> {
        Box::pin(async move {
            let command = Command::with(raw, command::parse(raw)?);
            self.handler.call(state, tx, command).await?.into_answer()
        })
    }
}

/// The handlers of a participant, by the command's type.
pub struct Router<S> {
    state: S,
    routes: HashMap<String, Box<dyn Route<S>>>,
}

impl<S: Send + Sync + 'static> Router<S> {
    pub(crate) fn new(state: S) -> Self {
        Self {
            state,
            routes: HashMap::new(),
        }
    }

    pub(crate) fn insert<H, P, R, Kind>(&mut self, command_type: &str, handler: H)
    where
        H: for<'a> Handler<'a, S, P, R, Kind>,
        P: DeserializeOwned + Send + 'static,
        R: IntoAnswer + 'static,
        Kind: 'static,
    {
        let route = Typed {
            handler,
            types: PhantomData,
        };
        let taken = self.routes.insert(command_type.to_owned(), Box::new(route));
        assert!(taken.is_none(), "'{command_type}' has two handlers");
    }
}

#[async_trait]
impl<S: Send + Sync + 'static> RawCommandHandler<PgConnection> for Router<S> {
    async fn handle(
        &self,
        tx: &mut PgConnection,
        command: &message::Command,
    ) -> Result<Answer, Failure> {
        match self.routes.get(&command.command_type) {
            Some(route) => route.handle(&self.state, tx, command).await,
            None => Err(command::unknown(command)),
        }
    }
}
