//! What was said in conversations, by the entries in the senders' own inboxes.

use bytes::Bytes;
use waypost_runtime::postgres::Transaction;
use waypost_schemas::{cause::Cause, event::MessageArrived, id::UserId};

const APPEND: &str = "INSERT INTO waypost.messages (conversation, number, partition, sender, device, client_id, value, \
    append_us) SELECT * FROM UNNEST($1::text[], $2::int8[], $3::int4[], $4::text[], $5::text[], $6::text[], \
    $7::bytea[], $8::int8[]) ON CONFLICT DO NOTHING";

/// Messages whose entries a batch holds.
#[derive(Debug, Default)]
pub(super) struct Rows(Vec<Row>);

#[derive(Debug)]
struct Row {
    conversation: String,
    number: i64,
    partition: i32,
    sender: String,
    device: String,
    client_id: String,
    value: Bytes,
    append_us: i64,
}

impl Rows {
    /// Adds the message of an entry where it stands in its sender's inbox, which has it once; `append_us` is the time
    /// of the message's own append, and `value` the entry's bytes.
    pub(super) fn add(
        &mut self,
        user: &UserId,
        arrived: &MessageArrived,
        cause: Cause,
        append_us: i64,
        value: &Bytes,
    ) {
        if *user != arrived.sender {
            return;
        }
        self.0.push(Row {
            conversation: arrived.conversation.to_string(),
            number: arrived.number,
            partition: cause.position.partition,
            sender: arrived.sender.to_string(),
            device: arrived.device.to_string(),
            client_id: arrived.client_id.replace('\0', "\u{fffd}"),
            value: value.clone(),
            append_us,
        });
    }

    pub(super) async fn write(&self, tx: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let texts = |of: fn(&Row) -> &str| -> Vec<&str> { self.0.iter().map(of).collect() };
        let numbers = |of: fn(&Row) -> i64| -> Vec<i64> { self.0.iter().map(of).collect() };
        let partitions: Vec<i32> = self.0.iter().map(|row| row.partition).collect();
        let values: Vec<&[u8]> = self.0.iter().map(|row| &row.value[..]).collect();
        let statement = tx.prepare_cached(APPEND).await?;
        tx.execute(
            &statement,
            &[
                &texts(|row| &row.conversation),
                &numbers(|row| row.number),
                &partitions,
                &texts(|row| &row.sender),
                &texts(|row| &row.device),
                &texts(|row| &row.client_id),
                &values,
                &numbers(|row| row.append_us),
            ],
        )
        .await
        .map(|_| ())
    }
}
