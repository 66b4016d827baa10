//! `logwarden-receiver serve`: takes what shippers push.

use std::{fs, path::Path, sync::Arc, time::Duration};

use logwarden_core::{error::chain, pipeline::PassReport};
use logwarden_push_source::Receiver;
use tracing::{info, warn};

use crate::{
    args::{Common, Serve},
    failure::Failure,
    run, setup, stop,
};

pub(crate) async fn serve(common: &Common, serve: &Serve) -> Result<u8, Failure> {
    let setup = setup::load(common)?;
    let state_dir = setup::state_dir(common, Some(&setup.config))?;
    let wired = setup.wire_push(&state_dir).await?;
    run::say_warnings(&setup, &wired);
    let Some(source) = wired.push.clone() else { return Err(Failure::failed("there is no state to keep batches in")) };
    let config = &setup.config.receiver;
    let pipeline = Arc::new(wired.pipeline);
    let mut builder = Receiver::builder(wired.ledger.clone(), source.clone(), setup.env.clone())
        .listen(serve.listen.unwrap_or(config.listen))
        .pipeline(pipeline.clone());
    for client in &config.clients {
        builder = builder.client(client.clone());
    }
    for network in config.insecure_allow.iter().chain(&serve.insecure_allow) {
        builder = builder.insecure_allow(*network);
    }
    if let Some((chain, key)) = &config.certificate {
        builder = builder.certificate(file(chain)?, file(key)?);
    }
    let receiver = builder.build().map_err(|error| {
        let failure = Failure::usage("the receiver cannot start").because(&error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    info!(version = env!("CARGO_PKG_VERSION"), listen = %receiver.local_addr(), state = %state_dir.display(), "receiver starts");
    let report = |pass: PassReport| run::say_report(&pass);
    let (tell, told) = tokio::sync::watch::channel(false);
    let stopped = |mut told: tokio::sync::watch::Receiver<bool>| async move {
        // The sender lives as long as this function.
        let _ = told.wait_for(|stop| *stop).await;
    };
    let working =
        pipeline.watch_pushed(0, || source.arrived(), Duration::from_secs(10), &report, stopped(told.clone()));
    let serving = receiver.serve(stopped(told));
    let stopping = async {
        stop::asked().await;
        info!("stopping: what is under way is finished");
        let _ = tell.send(true);
    };
    let (worked, served, ()) = tokio::join!(working, serving, stopping);
    if let Err(error) = &worked {
        warn!(error = %chain(error), "cannot go on");
        return Ok(1);
    }
    let _ = served;
    info!("receiver ends");
    Ok(0)
}

fn file(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::usage(format!("cannot read {}", path.display())).because(&error))
}
