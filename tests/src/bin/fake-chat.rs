//! Plays Discord, Slack and a webhook's receiver on one port, and prints what arrives as a person would read it.

use std::{
    io::{self, Write},
    net::SocketAddr,
    time::Duration,
};

use clap::Parser;
use logwarden_tests::{
    chat::{Fault, Request, Response, Server, Service},
    discord, slack, webhook,
};

/// Plays Discord, Slack and a webhook's receiver, so that one can see messages without an account.
#[derive(Debug, Parser)]
#[command(name = "fake-chat")]
struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:9099")]
    listen: SocketAddr,
    /// What happens to the first requests, one each: ok, 429, 429-html, 500, 404, 302, 200-wrong, 204, hang, cut, drip.
    #[arg(long, value_delimiter = ',', value_parser = fault)]
    script: Vec<Fault>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let server = Server::listen(arguments.listen, Chat::default()).await?;
    server.script(arguments.script);
    let mut out = io::stdout().lock();
    writeln!(out, "Listening. Addresses to configure:")?;
    writeln!(out, "  DISCORD_WEBHOOK_URL={}", discord::url(&server))?;
    writeln!(out, "  SLACK_WEBHOOK_URL={}", slack::url(&server))?;
    writeln!(out, "  a webhook: {}\n", webhook::url(&server))?;
    drop(out);
    std::future::pending().await
}

#[derive(Default)]
struct Chat {
    discord: discord::Discord,
    slack: slack::Slack,
    webhook: webhook::Webhook,
}

impl Service for Chat {
    fn answer(&mut self, request: &Request) -> Response {
        let (who, response) = if request.path.starts_with("/api/") {
            ("Discord", self.discord.answer(request))
        } else if request.path.starts_with("/services/") {
            ("Slack", self.slack.answer(request))
        } else {
            ("webhook", self.webhook.answer(request))
        };
        let payload = request.json().unwrap_or_default();
        let text = match who {
            "Discord" => discord::readable(&payload),
            "Slack" => slack::readable(&payload),
            _ => format!("{payload:#}\n"),
        };
        let what = if request.method == "PATCH" { "edited" } else { "posted" };
        let mut out = io::stdout().lock();
        let _ = match response.status {
            200..=299 if request.method == "GET" => writeln!(out, "── {who}: asked about the webhook"),
            200..=299 => writeln!(out, "── {who}: {what}\n{text}"),
            status => {
                writeln!(out, "── {who}: refused with {status} {}\n{text}", String::from_utf8_lossy(&response.body))
            }
        };
        response
    }
}

fn fault(name: &str) -> Result<Fault, String> {
    Ok(match name {
        "ok" => Fault::None,
        "429" => Fault::Answer(discord::rate_limited(1.5)),
        "429-html" => Fault::Answer(discord::banned()),
        "500" => Fault::Answer(Response::text(500, "rollup_error")),
        "404" => Fault::Answer(discord::error(404, 10015, "Unknown Webhook")),
        "302" => Fault::Answer(Response::empty(302).with("location", "https://example.com/login")),
        "200-wrong" => Fault::Answer(Response::text(200, "<html>please log in</html>")),
        "204" => Fault::TakeAndAnswer(Response::empty(204)),
        "hang" => Fault::Hang,
        "cut" => Fault::CutAfterRequest,
        "drip" => Fault::Drip(Duration::from_millis(20)),
        other => return Err(format!("`{other}` is no fault that can be played")),
    })
}
