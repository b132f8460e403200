//! What a request body may cost: its size, and how slowly it may come.

use std::time::Duration;

use pingora::ErrorType;
use pingora::prelude::{Error, Result};

use super::context::RequestContext;
use super::gateway::Gateway;

impl Gateway {
    /// Counts a part of a body.
    ///
    /// # Errors
    /// What the request is refused with: the body is too large, or hardly moves.
    pub(super) fn take_body(&self, ctx: &mut RequestContext, bytes: usize) -> Result<()> {
        ctx.body_bytes += bytes as u64;
        if ctx.body_limit.is_some_and(|limit| ctx.body_bytes > limit) {
            return self.refuse_body(ctx, 413, "body_too_large");
        }
        let Some(pace) = ctx.pace else { return Ok(()) };
        let since = Duration::from_micros(self.clock.now_us().saturating_sub(ctx.started_us));
        if pace.is_missed(ctx.body_bytes, since) { self.refuse_body(ctx, 408, "slow_body") } else { Ok(()) }
    }

    fn refuse_body(&self, ctx: &mut RequestContext, status: u16, word: &'static str) -> Result<()> {
        ctx.refused = Some(word);
        self.metrics.refused(word);
        Err(Error::explain(ErrorType::HTTPStatus(status), word).into_down())
    }
}
