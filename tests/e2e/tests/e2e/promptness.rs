//! What must not wait for what: readers share fetches, and a slow one blocks no other.

use std::time::Duration;

use harness::{Bucket, Scratch, View, files_below, wait_until};
use origin::{Fault, Kind, Rule};

#[test]
fn readers_of_one_file_share_its_fetch() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let mut bucket = Bucket::with_files(1, 80_000);
        bucket.generate("large", 3, 30 << 20);
        bucket.origin().set_latency(Duration::from_millis(50));
        let mount = bucket.mount(&scratch, view).switch("--no-hedging").mount();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    bucket.check(mount.path(), "dir-000/file-00000");
                    bucket.check(mount.path(), "large");
                });
            }
        });
        assert_eq!(
            bucket.counters().bytes_sent,
            bucket.total_bytes(),
            "{view:?}: no byte twice"
        );
        mount.unmount();
    }
}

#[test]
fn a_stalled_object_holds_up_no_other() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let bucket = Bucket::with_files(200, 20_000);
        let mount = bucket.mount(&scratch, view).mount();
        let stalled = "data/dir-000/file-00000";
        let rule = bucket.origin().faults().add(
            Rule::new(Fault::Stall { after: 10 })
                .on(&[Kind::Get])
                .under(stalled),
        );
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| std::fs::read(mount.join("dir-000/file-00000")));
            wait_until("the stalled request", || {
                bucket.counters().key("data", "dir-000/file-00000").gets > 0
            });
            for key in bucket.keys().iter().skip(1) {
                bucket.check(mount.path(), key);
            }
            assert_eq!(files_below(mount.path()).len(), 200, "listings are served");
            bucket.origin().faults().remove(rule);
            let bytes = waiting
                .join()
                .expect("the reader")
                .expect("the stalled object comes when it can");
            assert!(bytes == bucket.objects()["dir-000/file-00000"]);
        });
        mount.unmount();
    }
}

#[test]
fn listings_and_reads_go_on_while_files_arrive() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let bucket = Bucket::with_files(500, 20_000);
        let mount = bucket.mount(&scratch, view).mount();
        std::thread::scope(|scope| {
            for part in bucket.keys().chunks(125) {
                let (part, bucket, mount) = (part.to_vec(), &bucket, &mount);
                scope.spawn(move || part.iter().for_each(|key| bucket.check(mount.path(), key)));
            }
            for _ in 0..20 {
                assert_eq!(files_below(mount.path()).len(), 500);
            }
        });
        mount.unmount();
    }
}

#[test]
fn a_mount_of_a_known_source_needs_no_listing() {
    let scratch = Scratch::new();
    let bucket = Bucket::with_files(20, 20_000);
    let command = bucket.mount(&scratch, View::Kernel);
    command.mount().unmount();
    // Listings never end now; the catalog that is there is enough.
    let rule = bucket
        .origin()
        .faults()
        .add(Rule::new(Fault::Stall { after: 0 }).on(&[Kind::List]));
    let mount = command.mount();
    bucket.check_all(mount.path());
    bucket.origin().faults().remove(rule);
    mount.unmount();
}
