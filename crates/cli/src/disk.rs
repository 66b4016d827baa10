//! Is there room for the state?

use std::{path::Path, time::Duration};

use logwarden_core::{
    error::chain,
    pipeline::{Pipeline, Trouble},
};
use logwarden_sqlite::Room;
use tracing::warn;

/// How often programs that go on look.
const LOOK: Duration = Duration::from_secs(60);

/// Tells when the file system of the state is nearly full, and when it is no more.
pub(crate) async fn look(pipeline: &Pipeline, state_dir: &Path, keep_free: Option<u64>) {
    let Ok(room) = Room::of(state_dir, keep_free) else { return };
    let path = state_dir.display().to_string();
    let trouble = Trouble::DiskNearlyFull { path, free: room.free, push: room.keep_free, read: room.last() };
    let noted = if room.is_low() {
        warn!(free_mib = room.free >> 20, "the disk of the state is nearly full");
        pipeline.report_trouble(&[trouble]).await
    } else if room.free > room.keep_free.saturating_add(room.keep_free / 2) {
        let how = format!("there is room again: {} MiB are free where {} is", room.free >> 20, state_dir.display());
        pipeline.trouble_is_over(&trouble, &how).await
    } else {
        return; // neither: it would be over and begin anew all the time
    };
    if let Err(error) = noted {
        warn!(error = %chain(&error), "could not note how full the disk is");
    }
}

/// Looks again and again.
pub(crate) async fn keep_looking(pipeline: &Pipeline, state_dir: &Path, keep_free: Option<u64>) {
    loop {
        look(pipeline, state_dir, keep_free).await;
        tokio::time::sleep(LOOK).await;
    }
}
