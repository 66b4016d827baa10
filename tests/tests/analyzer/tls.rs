//! Everything behind TLS with a certificate of a private authority.

use logwarden_tests::tls::Tls;

use super::*;

fn address(url: &str) -> std::net::SocketAddr {
    url.strip_prefix("http://").unwrap().parse().unwrap()
}

#[tokio::test]
async fn loki_model_and_chat_are_reached_through_tls_with_an_authority_of_ones_own_and_not_without() {
    let world = World::new().await;
    world.log(60, OOM);
    let ollama = FakeOllama::start(Config::with(Model::new("qwen3:4b-instruct", Behaviour::Honest))).await;
    let loki = Tls::before(address(&world.loki.url())).await.unwrap();
    let model = Tls::before(address(&ollama.url())).await.unwrap();
    let chat = Tls::before(world.discord.address()).await.unwrap();
    let webhook = discord::url(&world.discord).replace(&world.discord.base(), &chat.url());
    let file = |name: &str, text: &str| {
        let path = world.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let authorities = [("loki.pem", &loki), ("model.pem", &model), ("chat.pem", &chat)];
    let [of_loki, of_model, of_chat] = authorities.map(|(name, tls)| file(name, tls.pem()));
    let run = async |system: &str| {
        let mut command = world.command(&["run"]);
        command.env("LOKI_URL", loki.url()).env("OLLAMA_HOST", model.url()).env("DISCORD_WEBHOOK_URL", &webhook);
        command.env("SSL_CERT_FILE", system).output().await.unwrap()
    };

    // Nobody trusts them: the run says whom, and loses nothing.
    let nobody = Tls::before(world.discord.address()).await.unwrap();
    let none = file("none.pem", nobody.pem());
    world.configure("[run]\nbudget_seconds = 5\n");
    let refused = run(&none).await;
    assert_eq!(refused.status.code(), Some(1));
    let text = err(&refused);
    assert!(text.contains("https://localhost") && text.contains("invalid peer certificate"), "{text}");

    // The chat's authority is in the system's store, the others' are named in the configuration.
    world.configure(&format!("[loki]\nca_file = \"{of_loki}\"\n[model]\nca_file = \"{of_model}\"\n"));
    let trusted = run(&of_chat).await;
    assert_eq!(trusted.status.code(), Some(0), "{}", err(&trusted));
    assert!(err(&trusted).contains("analysed=1"), "{}", err(&trusted));
    assert!(world.told().concat().contains("java"), "{:#?}", world.told());

    // A file that holds no certificate is a mistake of the configuration.
    let empty = file("empty.pem", "no certificate");
    world.configure(&format!("[model]\nca_file = \"{empty}\"\n"));
    let wrong = run(&of_chat).await;
    assert_eq!(wrong.status.code(), Some(2), "{}", err(&wrong));
    assert!(err(&wrong).contains("is no PEM") && err(&wrong).contains("BEGIN CERTIFICATE"), "{}", err(&wrong));
}
