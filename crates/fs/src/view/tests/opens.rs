//! The counting of opens.
//!
//! Within a test each thread opens each file once between two drains: events of one thread and one file may be merged.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};

use super::super::opens::{Group, OpenCounter, OpenSink};
use super::super::{InUse, KernelView, OverlayMode};
use super::fixture::{Fixture, MODES};
use super::worker::RecordingWorker;
use crate::metrics::ViewMetrics;

struct CounterFixture {
    sink: Arc<OpenSink>,
    counter: OpenCounter,
    group: Arc<Group>,
    metrics: ViewMetrics,
    worker: Arc<RecordingWorker>,
}

impl CounterFixture {
    fn start(fixture: &Fixture, mode: OverlayMode) -> Self {
        let metrics = ViewMetrics::register(&prometheus::Registry::new()).unwrap();
        let sink = Arc::new(OpenSink::new(metrics.clone()));
        let worker = RecordingWorker::new(fixture);
        sink.connect(Some(Arc::clone(&worker) as _));
        let counter = OpenCounter::start(Arc::clone(&sink)).unwrap();
        let group = Arc::new(Group::new(mode, fixture.catalog()).unwrap());
        counter.add(Arc::clone(&group));
        Self {
            sink,
            counter,
            group,
            metrics,
            worker,
        }
    }

    /// Mounts a view whose opens are counted.
    fn mount(&self, fixture: &Fixture, name: &str, mode: OverlayMode) -> KernelView {
        let view =
            KernelView::mount(fixture.spec(format!("{name}-{mode:?}")), mode, &fixture.mounter).unwrap();
        self.group.mark(view.anchor().as_fd()).unwrap();
        view
    }

    /// Opens and bytes that the kernel served alone, and what was lost.
    fn counted(&self) -> (u64, u64, u64) {
        self.counter.drain(&self.group);
        (
            self.worker.opens(),
            self.worker.bytes(),
            self.metrics.events_lost.get(),
        )
    }
}

fn open_all(fixture: &Fixture, view: &Path) {
    for file in &fixture.files {
        drop(File::open(view.join(&file.name)).unwrap());
    }
}

fn bytes(fixture: &Fixture) -> u64 {
    fixture.files.iter().map(|file| file.content.len() as u64).sum()
}

#[test]
fn sixty_thousand_opens_of_many_threads_and_three_views_are_counted_exactly() {
    let fixture = Fixture::new(5000);
    let _image = fixture.image();
    fixture.put_all("memory/objects");
    for mode in MODES {
        let counting = CounterFixture::start(&fixture, mode);
        let views: Vec<_> = ["a", "b", "c"]
            .map(|name| counting.mount(&fixture, name, mode))
            .into();
        std::thread::scope(|scope| {
            for view in &views {
                for _ in 0..4 {
                    scope.spawn(|| open_all(&fixture, &view.spec().target));
                }
            }
        });
        assert_eq!(counting.counted(), (60_000, 12 * bytes(&fixture), 0));
        for view in views {
            view.unmount(InUse::Refuse).unwrap();
        }
    }
}

#[test]
fn opens_through_a_bind_mount_in_another_namespace_are_counted() {
    let fixture = Fixture::new(300);
    let _image = fixture.image();
    fixture.put_all("disk, a:b\\c/objects");
    for mode in MODES {
        let counting = CounterFixture::start(&fixture, mode);
        let view = counting.mount(&fixture, "view", mode);
        let elsewhere = fixture.path().join("elsewhere");
        fs::create_dir_all(&elsewhere).unwrap();
        let pod = || {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            mount_bind(&view.spec().target, &elsewhere).unwrap();
            open_all(&fixture, &elsewhere);
        };
        std::thread::scope(|scope| scope.spawn(pod).join().unwrap());
        assert_eq!(counting.counted(), (300, bytes(&fixture), 0));
        assert_eq!(
            elsewhere.read_dir().unwrap().count(),
            0,
            "the bind mount was the other namespace's"
        );
        // The namespace ends with its thread, but by the kernel's own time: until then it uses the view.
        view.unmount(InUse::Detach).unwrap();
    }
}

#[test]
fn a_view_is_unmounted_right_after_many_opens_and_none_is_lost() {
    let fixture = Fixture::new(1000);
    let _image = fixture.image();
    fixture.put_all("memory/objects");
    for mode in MODES {
        let counting = CounterFixture::start(&fixture, mode);
        for round in 1..=5 {
            let view = counting.mount(&fixture, "view", mode);
            open_all(&fixture, &view.spec().target);
            if mode == OverlayMode::Descriptors {
                // Events with descriptors are a use of the view.
                counting.counted();
            }
            view.unmount(InUse::Refuse).unwrap();
            assert_eq!(counting.counted(), (1000 * round, bytes(&fixture) * round, 0));
        }
    }
}

#[test]
fn opens_that_fuse_had_a_part_in_are_not_counted_as_the_kernels() {
    let fixture = Fixture::new(40);
    let _image = fixture.image();
    for mode in MODES {
        let counting = CounterFixture::start(&fixture, mode);
        let view = counting.mount(&fixture, "view", mode);
        for (number, file) in fixture.files.iter().enumerate() {
            match number % 4 {
                0 => {
                    fixture.put("fuse/objects", file);
                    counting.sink.fuse_opens.log_open(file.id, 1);
                }
                1 => {
                    fixture.put("memory/landing", file);
                    counting.sink.fuse_opens.log_landing(file.id);
                }
                _ => drop(fixture.put("memory/objects", file)),
            }
        }
        open_all(&fixture, &view.spec().target);
        let files = fixture.files.iter().enumerate();
        let native = files.filter(|(number, _)| number % 4 > 1);
        let native_bytes: u64 = native.map(|(_, file)| file.content.len() as u64).sum();
        assert_eq!(counting.counted(), (20, native_bytes, 0));
        assert_eq!(counting.metrics.events_deducted.get(), 20);
        open_all(&fixture, &view.spec().target);
        assert_eq!(counting.counted(), (60, native_bytes + bytes(&fixture), 0));
        view.unmount(InUse::Refuse).unwrap();
    }
}

#[test]
fn a_counted_open_does_not_keep_an_object_from_eviction() {
    let fixture = Fixture::new(3);
    let _image = fixture.image();
    let object = fixture.put("memory/objects", &fixture.files[0]);
    let counting = CounterFixture::start(&fixture, OverlayMode::Handles);
    let view = counting.mount(&fixture, "view", OverlayMode::Handles);
    drop(File::open(view.spec().target.join(&fixture.files[0].name)).unwrap());
    super::io::take_write_lease(&File::open(&object).unwrap()).unwrap();
    assert_eq!(counting.counted().0, 1);
    view.unmount(InUse::Refuse).unwrap();
}
