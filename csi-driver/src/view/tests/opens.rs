//! The counting of opens.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use super::super::opens::{Group, OpenCounter, Tally};
use super::super::{InUse, KernelView};
use super::fixture::{Fixture, MODES};
use crate::metrics::{ServedFrom, ViewMetrics};
use std::os::fd::AsFd;

struct Counting {
    tally: Arc<Tally>,
    counter: OpenCounter,
    metrics: ViewMetrics,
}

impl Counting {
    fn start() -> Self {
        let metrics = ViewMetrics::register(&prometheus::Registry::new()).unwrap();
        let tally = Arc::new(Tally::new(metrics.clone()));
        let counter = OpenCounter::start(Arc::clone(&tally)).unwrap();
        Self {
            tally,
            counter,
            metrics,
        }
    }
}

#[test]
fn opens_of_several_threads_and_views_are_counted_exactly() {
    let fixture = Fixture::new(200);
    let _image = fixture.image();
    fixture.put_all("memory/objects");
    let bytes: u64 = fixture.files.iter().map(|file| file.content.len() as u64).sum();
    for mode in MODES {
        let counting = Counting::start();
        let group = Arc::new(Group::new(mode, fixture.catalog()).unwrap());
        counting.counter.add(Arc::clone(&group));
        let views: Vec<_> = (0..3)
            .map(|number| KernelView::mount(fixture.spec(format!("v{mode:?}{number}")), mode).unwrap())
            .collect();
        for view in &views {
            group.mark(view.anchor().as_fd()).unwrap();
        }
        std::thread::scope(|scope| {
            for view in &views {
                for _ in 0..2 {
                    scope.spawn(|| {
                        for file in &fixture.files {
                            drop(fs::File::open(view.spec().target.join(&file.name)).unwrap());
                        }
                    });
                }
            }
        });
        counting.counter.drain(&group);
        assert_eq!(counting.metrics.opens(ServedFrom::Local).get(), 200 * 6);
        assert_eq!(counting.metrics.bytes(ServedFrom::Local).get(), bytes * 6);
        assert_eq!(counting.metrics.events_lost.get(), 0);
        for view in &views {
            for file in &fixture.files {
                drop(fs::File::open(view.spec().target.join(&file.name)).unwrap());
            }
            counting.counter.drain(&group);
            view.unmount(InUse::Refuse).unwrap();
        }
        counting.counter.remove(&group);
        assert_eq!(counting.metrics.opens(ServedFrom::Local).get(), 200 * 9);
        assert_eq!(counting.metrics.events_lost.get(), 0);
        let _unused = (HashMap::<u8, u8>::new(), &counting.tally);
    }
}
