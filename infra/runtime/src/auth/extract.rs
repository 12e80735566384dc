//! Extractors that check the token of a request.

use std::sync::Arc;

use axum::{
    extract::{FromRef, FromRequestParts},
    http::{header, request::Parts},
};

use super::{Identity, Keys, Refusal};
use crate::{clock::Clock, http::Problem};

/// What the extractors need; a router's state gives it by `FromRef`. A cheap clone.
#[derive(Clone, Debug)]
pub struct Auth {
    /// The keys that tokens are checked by.
    pub keys: Arc<Keys>,
    /// The clock that says whether they are expired.
    pub clock: Clock,
}

/// The identity of an operator; others are refused with `forbidden`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator(pub Identity);

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code()).detail(refusal.to_string())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Identity
where
    Auth: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Auth { keys, clock } = Auth::from_ref(state);
        let token = bearer(parts)?;
        Ok(keys.verify(token, clock.now())?)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Operator
where
    Auth: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let identity = Identity::from_request_parts(parts, state).await?;
        if identity.is_operator() { Ok(Self(identity)) } else { Err(Refusal::Forbidden.into()) }
    }
}

fn bearer(parts: &Parts) -> Result<&str, Refusal> {
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(Refusal::Missing)?;
    if values.next().is_some() {
        return Err(Refusal::Bad("there is more than one Authorization header"));
    }
    let text = value.to_str().map_err(|_| Refusal::Bad("the Authorization header is no text"))?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(Refusal::Missing),
    }
}
