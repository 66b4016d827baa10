//! What every notifier promises, as functions that each implementation runs against its platform's double.

use crate::{
    Timestamp,
    error::chain,
    message::{Body, Message, Notice, SendId, Untrusted},
    notifier::{Form, Notifier, NotifyError, Receipt},
};

/// What a platform's double knows of a notifier.
pub struct Platform<'a> {
    /// Requests that have arrived so far.
    pub attempts: &'a (dyn Fn() -> u64 + Sync),
    /// Parts of the address, and other things that must never be shown.
    pub secrets: &'a [&'a str],
}

impl std::fmt::Debug for Platform<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Platform").finish_non_exhaustive()
    }
}

impl Platform<'_> {
    fn shows_no_secret(&self, text: &str) {
        for secret in self.secrets {
            assert!(!text.contains(secret), "a secret is shown in {text:?}");
        }
    }

    async fn send(
        &self,
        notifier: &dyn Notifier,
        message: &Message,
        form: Form,
        amend: Option<&Receipt>,
    ) -> Result<Receipt, NotifyError> {
        let before = (self.attempts)();
        let sent = notifier.send(message, form, amend).await;
        assert_eq!((self.attempts)() - before, 1, "one call is one attempt");
        match &sent {
            Ok(receipt) => self.shows_no_secret(&receipt.0),
            Err(error) => {
                self.shows_no_secret(&chain(error));
                self.shows_no_secret(&format!("{error:?}"));
            }
        }
        sent
    }
}

/// A message with everything in it that must do no harm.
pub fn hostile() -> Message {
    let text = "@everyone <!channel> <@123> [link](https://evil.example) `a` ```b``` *c* \u{202e}d \u{1b}[31m \0 & < >";
    let notice = Notice {
        severity: crate::Severity::High,
        title: "a title of ours".to_owned(),
        facts: vec![("Fact".to_owned(), Untrusted::new(text.repeat(200)))],
        next_steps: vec!["systemctl status nginx".to_owned()],
    };
    Message {
        id: SendId(7),
        at: Timestamp::from_secs(1_795_230_900),
        body: Body::Notice(notice),
        possible_repeat: true,
    }
}

/// Every message is taken in either form, with one attempt each; who amends does, who does not ignores the receipt; nothing
/// shows the address. The platform must take all messages.
///
/// # Panics
///
/// When the notifier breaks the contract.
pub async fn sends_each_message_once(notifier: &dyn Notifier, platform: &Platform<'_>, messages: &[Message]) {
    let channel = notifier.channel();
    assert!(!channel.name.is_empty() && !channel.longest_send.is_zero() && channel.per_minute > 0, "{channel:?}");
    platform.shows_no_secret(&format!("{notifier:?}"));
    for message in messages.iter().chain([&hostile()]) {
        for form in [Form::Full, Form::Reduced] {
            let receipt = platform.send(notifier, message, form, None).await;
            let receipt = receipt.unwrap_or_else(|error| panic!("{}", chain(&error)));
            let again = platform.send(notifier, message, form, Some(&receipt)).await;
            again.unwrap_or_else(|error| panic!("{}", chain(&error)));
        }
    }
}

/// A platform that fails is told of without its address, after one attempt; what it answers next is up to the caller.
///
/// # Panics
///
/// When the notifier breaks the contract, or the platform has not failed.
pub async fn says_why_it_failed(notifier: &dyn Notifier, platform: &Platform<'_>, message: &Message) -> NotifyError {
    match platform.send(notifier, message, Form::Full, None).await {
        Ok(_) => panic!("the platform must fail"),
        Err(error) => error,
    }
}
