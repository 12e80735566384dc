//! Reading partitions: a feed for each, a fetching thread for each topic.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError, mpsc},
};

use waypost_schemas::topic::{Topic, TopicPartition};

use super::{
    Limits,
    context::Outage,
    fetch::{self, Command},
    queue::Queue,
    settings::{Favour, Settings},
};
use crate::broker::{self, Batch, Boxed, Error};

/// A reader. Each topic is fetched by a client of its own, because librdkafka's event of a partition's end, as it
/// reaches us, names the partition and not its topic.
pub(super) struct Reader {
    settings: Arc<Settings>,
    outage: Arc<Outage>,
    limits: Limits,
    favour: Favour,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    threads: BTreeMap<Topic, mpsc::Sender<Command>>,
    open: BTreeSet<TopicPartition>,
}

impl Reader {
    pub(super) fn new(
        settings: Arc<Settings>,
        outage: Arc<Outage>,
        (limits, favour): (Limits, Favour),
    ) -> Self {
        Self { settings, outage, limits, favour, state: Arc::default() }
    }
}

impl broker::Reader for Reader {
    fn open(&self, partition: TopicPartition, offset: i64) -> Result<Box<dyn broker::Feed>, Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.open.contains(&partition) {
            return Err(broker::open_already(partition));
        }
        let topic = partition.topic;
        let commands = match state.threads.get(&topic) {
            Some(commands) => commands.clone(),
            None => fetch::start(&self.settings, self.outage.clone(), (topic, self.favour))?,
        };
        let queue = Arc::new(Queue::new(self.limits, offset));
        let feed =
            Feed { partition, queue: queue.clone(), commands: commands.clone(), reader: self.state.clone() };
        feed.tell(Command::Open { partition: partition.partition, offset, queue });
        state.open.insert(partition);
        state.threads.insert(topic, commands);
        Ok(Box::new(feed))
    }
}

struct Feed {
    partition: TopicPartition,
    queue: Arc<Queue>,
    commands: mpsc::Sender<Command>,
    reader: Arc<Mutex<State>>,
}

impl Feed {
    fn tell(&self, command: Command) {
        if self.commands.send(command).is_err() {
            self.queue
                .fail(Error::Fatal { what: format!("the thread that fetches {} ended", self.partition) });
        }
    }
}

impl broker::Feed for Feed {
    fn next(&mut self) -> Boxed<'_, Result<Batch, Error>> {
        Box::pin(async {
            let taken = self.queue.take().await;
            if taken.resume {
                self.tell(Command::Resume { partition: self.partition.partition });
            }
            taken.batch
        })
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // Told before the partition can be opened again, so that the thread hears it in that order.
        self.tell(Command::Close { partition: self.partition.partition });
        self.reader.lock().unwrap_or_else(PoisonError::into_inner).open.remove(&self.partition);
    }
}
