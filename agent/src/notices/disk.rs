//! Watches the disk: whether it takes what is written.

use std::time::Duration;

use peerage_proto::notice::{NoticeKind, State};
use tokio::time::sleep;

use super::Notices;
use crate::store::Store;

/// How often a disk that failed is tried. An idle agent writes nothing, so it would not find out
/// otherwise that the disk has room again.
const TRY_EVERY: Duration = Duration::from_secs(5);

/// Keeps the notice about the disk, until the store closes.
pub async fn watch_disk(store: Store, notices: Notices) {
    let mut health = store.health();
    let mut before = 0;
    loop {
        let now = health.borrow_and_update().clone();
        match &now.failing {
            None => notices.set(NoticeKind::Disk, None),
            Some(error) if now.failures != before => {
                notices.again(NoticeKind::Disk, State::new(error.what(), error.remedy()));
            }
            Some(_) => {}
        }
        before = now.failures;
        tokio::select! {
            changed = health.changed() => if changed.is_err() { return },
            () = sleep(TRY_EVERY), if now.failing.is_some() => {
                // The result shows in the store's health.
                let _ = store.try_out(now.wanted).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::notices::tests::{notices, told};
    use crate::store::{Disk, Image, MemoryDisk, Report, StoreError, Write};

    /// A disk that takes nothing while it is full.
    struct Filling(MemoryDisk, Arc<AtomicBool>);

    impl Disk for Filling {
        fn load(&mut self) -> Result<Image, StoreError> {
            self.0.load()
        }

        fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
            if self.1.load(Ordering::Relaxed) {
                let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
                return Err(StoreError::io("write", Path::new("/data/journal"), &full));
            }
            self.0.commit(writes)
        }

        fn check(&mut self) -> Result<Report, StoreError> {
            self.0.check()
        }

        fn copy_to(&mut self, path: &Path) -> Result<(), StoreError> {
            self.0.copy_to(path)
        }

        fn tidy(&mut self) -> Result<(), StoreError> {
            self.0.tidy()
        }

        fn compact(&mut self) -> Result<(), StoreError> {
            self.0.compact()
        }

        fn size_bytes(&self) -> u64 {
            self.0.size_bytes()
        }
    }

    /// Nothing is written meanwhile, so only the watch itself can find out that there is room.
    #[tokio::test(start_paused = true)]
    async fn a_full_disk_is_told_and_so_is_room_that_somebody_made() {
        let full = Arc::new(AtomicBool::new(true));
        let (store, owner) =
            Store::over(Filling(MemoryDisk::default(), full.clone()), "/data/backup".into());
        tokio::spawn(owner.serve(|| Duration::ZERO));
        let (notices, happenings) = notices();
        let mut board = notices.board();
        tokio::spawn(watch_disk(store.clone(), notices));

        let write = || vec![Write::Meta { name: "name", value: vec![1] }];
        store.commit(write()).await.unwrap_err();
        let shown = board.wait_for(|board| board.standing().count() == 1).await.unwrap().clone();
        let (kind, notice) = shown.standing().next().unwrap();
        assert_eq!((kind, notice.times), (NoticeKind::Disk, 1));
        assert!(notice.message.contains("/data/journal"), "{notice:?}");
        assert!(notice.hint.contains("Free some space"), "{notice:?}");
        assert!(!notice.message.contains("Free some space"), "{notice:?}");

        board.wait_for(|board| board.standing().any(|(_, n)| n.times == 3)).await.unwrap();
        full.store(false, Ordering::Relaxed);
        board.wait_for(|board| board.standing().count() == 0).await.unwrap();
        let told = told(&happenings).await;
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[1], "disk the disk takes what is written again");
        store.commit(write()).await.unwrap();
    }
}
