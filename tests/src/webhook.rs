//! A double of a webhook's receiver: keeps what it gets.

use serde_json::Value;

use crate::chat::{Request, Response, Server, Service};

/// The token in the double's addresses: it must never appear anywhere else.
pub const TOKEN: &str = "MARKER-webhook-5d0e";

/// A receiver.
pub type FakeWebhook = Server<Webhook>;

/// The receiver's address on `server`.
pub fn url<S: Service>(server: &Server<S>) -> String {
    format!("{}/hook/{TOKEN}?key={TOKEN}", server.base())
}

/// What the double keeps.
#[derive(Debug, Default)]
pub struct Webhook {
    /// What came, in order, repeats included.
    pub deliveries: Vec<Delivery>,
}

/// One delivery.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// `webhook-id`: the same for repeats.
    pub id: String,
    /// `webhook-timestamp`.
    pub timestamp: String,
    /// `webhook-signature`; empty when unsigned.
    pub signature: String,
    /// The body as signed.
    pub raw: Vec<u8>,
    /// The body.
    pub payload: Value,
}

impl Service for Webhook {
    fn answer(&mut self, request: &Request) -> Response {
        if request.path != format!("/hook/{TOKEN}") {
            return Response::text(404, "not found");
        }
        let Some(payload) = request.json() else { return Response::text(400, "not JSON") };
        let header = |name: &str| request.header(name).unwrap_or_default().to_owned();
        self.deliveries.push(Delivery {
            id: header("webhook-id"),
            timestamp: header("webhook-timestamp"),
            signature: header("webhook-signature"),
            raw: request.body.clone(),
            payload,
        });
        Response::empty(202)
    }
}
