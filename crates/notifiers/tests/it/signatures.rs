//! The webhook's headers, checked as a receiver would.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use logwarden_core::{
    Severity,
    notifier::{Form, Notifier},
};
use logwarden_notifiers::{AddressError, Webhook};
use logwarden_tests::{
    chat::Server,
    webhook::{self, FakeWebhook},
};
use sha2::Sha256;

use crate::samples::{self, NOW, OLD_SECRET, SECRET, Still};

#[tokio::test]
async fn both_secrets_sign_and_the_id_stays_the_same_through_repeats() {
    let server: FakeWebhook = Server::start(webhook::Webhook::default()).await.unwrap();
    let channel = samples::webhook_at(&server);
    let message = &samples::all()[0].1;
    channel.send(message, Form::Full, None).await.unwrap();
    channel.send(message, Form::Reduced, None).await.unwrap();
    let deliveries = server.with(|hook| hook.deliveries.clone());
    assert_eq!(deliveries[0].id, "msg_00000000000000000123456789abcdef");
    assert_eq!(deliveries[0].id, deliveries[1].id);
    assert_eq!(deliveries[0].payload["id"], deliveries[0].id.as_str());
    assert_eq!(deliveries[0].timestamp, NOW.secs().to_string());
    for delivery in deliveries {
        let sign = |secret: &[u8]| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
            mac.update(format!("{}.{}.", delivery.id, delivery.timestamp).as_bytes());
            mac.update(&delivery.raw);
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        };
        let first = STANDARD.decode(SECRET.trim_start_matches("whsec_")).unwrap();
        assert_eq!(delivery.signature, format!("{} {}", sign(&first), sign(OLD_SECRET.as_bytes())));
    }
}

#[test]
fn bad_secrets_are_refused_without_quoting_them() {
    for secret in ["", "tiny", "whsec_!!!!", "whsec_c2hvcnQ="] {
        let url = "http://127.0.0.1:9/hook".into();
        let env = std::sync::Arc::new(Still);
        let error = Webhook::new("hook", &url, &[secret.into()], Severity::Low, b"key", env).unwrap_err();
        assert!(matches!(error, AddressError::Secret { .. }), "{error}");
        assert!(secret.is_empty() || !error.to_string().contains(secret.trim_start_matches("whsec_")), "{error}");
    }
}
