//! What every classifier promises.

use logwarden_core::testing::classifier::{Behind, INVENTIVE, Slow, every_promise};

use super::*;

/// The double, and how often it had been left before.
struct Double(FakeOllama);

impl Slow for Double {
    async fn works(&self) {
        assert!(self.0.until(|_| !self.0.chats().is_empty()).await);
    }

    async fn stops(&self) {
        assert!(self.0.until(|counters| counters.cancelled > 0).await);
    }
}

#[tokio::test]
async fn it_keeps_its_promises() {
    every_promise(&digest(), async |behind| {
        let behaviour = match behind {
            Behind::Inventive => Behaviour::Fixed(INVENTIVE.to_owned()),
            Behind::Broken => Behaviour::Fixed("{\"findings\":[{\"cites\":[1],".to_owned()),
            Behind::Honest | Behind::Nobody | Behind::Slow => Behaviour::Honest,
        };
        let mut config = Config::with(Model::new(NAME, behaviour));
        if behind == Behind::Slow {
            config.delays.prompt = Duration::from_secs(60);
        }
        let server = FakeOllama::start(config).await;
        let client = match behind {
            Behind::Nobody => builder_at("http://127.0.0.1:1").model(NAME).build().unwrap(),
            _ => client(&server),
        };
        (client, Double(server))
    })
    .await;
}
