//! The routes: one for each operation of the table, all with the same way of answering.

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use peerage_proto::api::{ApiError, ErrorCode, Method, Operation, ROOT, operations};
use tokio_util::sync::CancellationToken;

use super::request::{Received, receive};
use super::room::Room;
use super::stream::Streams;
use super::tell::{Means, Tell, refused};
use crate::api::{Agent, Rights, Serve};

/// The routes to this agent, for callers that have the rights. Streams end at `shutdown`.
///
/// A request must carry its caller as an extension, which [`serve`](super::serve) sees to.
pub fn router(agent: Agent, rights: Rights, shutdown: CancellationToken) -> Router {
    let room = Room::new();
    let streams = Streams::new(room.clone(), shutdown);
    let front = Front { agent, rights, means: Means { room, streams } };
    let mut router = Router::new();
    macro_rules! routes {
        ($($operation:ty),*) => { $(router = front.route::<$operation>(router);)* };
    }
    operations!(routes);
    router.fallback(no_such_path).method_not_allowed_fallback(no_such_method)
}

/// Where requests are answered.
#[derive(Clone)]
struct Front {
    agent: Agent,
    rights: Rights,
    means: Means,
}

impl Front {
    /// The routes with one more, to this operation.
    fn route<O: Operation<Answer: Tell>>(&self, router: Router) -> Router
    where
        Agent: Serve<O>,
    {
        let filter = match O::METHOD {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
            Method::Patch => MethodFilter::PATCH,
            Method::Delete => MethodFilter::DELETE,
        };
        let front = self.clone();
        let handler = move |request: Request| {
            let front = front.clone();
            async move {
                let answered = front.answer::<O>(request).await;
                answered.unwrap_or_else(|error| refused(&error))
            }
        };
        router.route(&format!("{ROOT}{}", O::PATH), on(filter, handler))
    }

    /// The one way of every request: the request is read and served, and the answer is told.
    async fn answer<O: Operation<Answer: Tell>>(
        &self,
        request: Request,
    ) -> Result<Response, ApiError>
    where
        Agent: Serve<O>,
    {
        let received = receive::<O>(request, &self.means.room, &self.rights).await?;
        // The room of the body is kept until the operation is answered.
        let Received { by, operation, body: _body } = received;
        let ready = O::Answer::ready(&self.means, by.uid).await?;
        let reply = self.agent.serve(&by.caller, operation).await?;
        O::Answer::tell::<O>(&self.means, &by, ready, reply).await
    }
}

async fn no_such_path(uri: Uri) -> Response {
    let message = format!("there is nothing at {}", uri.path());
    let hint = format!("try {ROOT}status, {ROOT}members or {ROOT}settings");
    refused(&ApiError::new(ErrorCode::NotFound, message).hint(hint))
}

async fn no_such_method(request: Request) -> Response {
    let message = format!("{} cannot be used on {}", request.method(), request.uri().path());
    let hint = "GET looks, POST does, PATCH changes, DELETE takes away";
    refused(&ApiError::new(ErrorCode::MethodNotAllowed, message).hint(hint))
}
