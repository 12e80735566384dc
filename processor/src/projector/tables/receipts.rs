//! Up to where members have, and have read, what the others of a conversation said.

use std::collections::BTreeMap;

use waypost_runtime::postgres::Transaction;
use waypost_schemas::{
    event::{ReceiptArrived, ReceiptKind},
    id::{ConversationId, UserId},
};

/// The highest number wins: receipts of one member may come from several partitions.
const RAISE: &str = "INSERT INTO waypost.receipts AS r (conversation, user_id, kind, upto) \
    SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::int8[]) \
    ON CONFLICT (conversation, user_id, kind) DO UPDATE SET upto = EXCLUDED.upto WHERE EXCLUDED.upto > r.upto";

/// The highest receipts of a batch, in the order in which all batches lock their rows.
#[derive(Debug, Default)]
pub(super) struct Rows(BTreeMap<(ConversationId, UserId, &'static str), i64>);

impl Rows {
    pub(super) fn add(&mut self, receipt: &ReceiptArrived) {
        let key = (receipt.conversation.clone(), receipt.user.clone(), kind(receipt.kind));
        let upto = self.0.entry(key).or_insert(receipt.upto);
        *upto = receipt.upto.max(*upto);
    }

    pub(super) async fn write(&self, tx: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let conversations: Vec<&str> =
            self.0.keys().map(|(conversation, ..)| conversation.as_str()).collect();
        let users: Vec<&str> = self.0.keys().map(|(_, user, _)| user.as_str()).collect();
        let kinds: Vec<&str> = self.0.keys().map(|(.., kind)| *kind).collect();
        let uptos: Vec<i64> = self.0.values().copied().collect();
        let statement = tx.prepare_cached(RAISE).await?;
        tx.execute(&statement, &[&conversations, &users, &kinds, &uptos]).await.map(|_| ())
    }
}

fn kind(kind: ReceiptKind) -> &'static str {
    match kind {
        ReceiptKind::Delivered => "delivered",
        ReceiptKind::Read => "read",
    }
}
