//! A case: a rule, and the code that plays it.
//!
//! A case judges only its own rule. Commands on the way there are sent with [`Scene::tell`], which accepts any reply,
//! and not with [`Scene::ask`].

use crate::scene::{Scene, Stop};
use futures_util::future::BoxFuture;

pub(super) type Played = Result<(), Stop>;
type Play = for<'s, 'a> fn(&'s mut Scene<'a>) -> BoxFuture<'s, Played>;

/// A rule of the contract, with the code that tests it.
pub struct Case {
    pub name: &'static str,
    /// The damage to a saga if the rule is broken.
    pub why: &'static str,
    pub(crate) play: Play,
}
