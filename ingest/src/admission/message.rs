use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};
use waypost_schemas::{
    client_id::ClientId,
    event::MessageSent,
    id::{ConversationId, UserId},
    time::Micros,
};

use super::{Limits, Refusal, Sender, ensure, media_type, object::Object};
use crate::code::Code;

/// What a message's body is where its sender does not say.
const MEDIA_TYPE: &str = "text/plain";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written<'a> {
    #[serde(rename = "type")]
    kind: Option<IgnoredAny>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    settled: Option<Cow<'a, str>>,
    #[serde(borrow)]
    to: Option<Cow<'a, str>>,
    #[serde(borrow)]
    conversation: Option<Cow<'a, str>>,
    #[serde(borrow)]
    content_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    body: Cow<'a, str>,
    reply_to: Option<i64>,
}

/// Reads the body of a send and checks all of it; the stamp of what it gives is still -1.
///
/// `{"id", "settled"?, "to" or "conversation", "content_type"?, "body", "reply_to"?}`. It is always the sender's own
/// device that writes.
pub fn message(
    body: &[u8],
    sender: Sender<'_>,
    limits: &Limits,
    now: Micros,
) -> Result<MessageSent, Refusal> {
    let body = read(body)?;
    ensure(body.kind.is_none(), Code::BadField, || "type is for frames only".into())?;
    admit(body, sender, limits, now)
}

/// Reads a send, which in a frame has a `type` too.
pub(super) fn read(body: &[u8]) -> Result<Written<'_>, Refusal> {
    let read = serde_json::from_slice::<Object<Written<'_>>>(body);
    read.map(|Object(body)| body).map_err(|error| Refusal::unreadable(&error))
}

/// Checks all of a send that could be read.
pub(super) fn admit(
    body: Written<'_>,
    sender: Sender<'_>,
    limits: &Limits,
    now: Micros,
) -> Result<MessageSent, Refusal> {
    let id: ClientId = body.id.parse().map_err(|e| Refusal::new(Code::BadClientId, format!("id is {e}")))?;
    in_time(id, limits, now)?;
    let settled = body.settled.map(|text| settled(&text, id)).transpose()?;
    let user = sender.device.user();
    let conversation = recipient(body.to, body.conversation, &user)?;
    let content_type = body.content_type.unwrap_or(Cow::Borrowed(MEDIA_TYPE));
    media_type::check(&content_type, limits.media_type_bytes_max)?;
    ensure(!body.body.is_empty(), Code::EmptyBody, || "body is empty".into())?;
    ensure(body.body.len() <= limits.message_bytes_max, Code::MessageTooLarge, || {
        format!("body has {} bytes; {} are taken", body.body.len(), limits.message_bytes_max)
    })?;
    if let Some(number) = body.reply_to {
        ensure(number >= 0, Code::BadOffset, || format!("reply_to is {number}; a number is 0 or more"))?;
    }
    Ok(MessageSent {
        conversation,
        sender: user,
        device: sender.device.name(),
        client_id: id.to_string(),
        settled,
        content_type: content_type.into_owned(),
        body: body.body.into_owned().into_bytes(),
        reply_to: body.reply_to,
        registry: -1,
    })
}

/// Refuses an id that was minted by another time than the server's.
fn in_time(id: ClientId, limits: &Limits, now: Micros) -> Result<(), Refusal> {
    let oldest = Micros(now.0.saturating_sub(limits.client_id_behind_us_max));
    let newest = Micros(now.0.saturating_add(limits.client_id_ahead_us_max));
    let at = id.at();
    let refused = ensure((oldest..=newest).contains(&at), Code::Clock, || {
        format!("id is of {at}; here it is {now}, and {oldest} to {newest} is taken")
    });
    refused.map_err(|refusal| Refusal { time: Some(now), ..refusal })
}

/// What a send settles, which cannot be the send itself.
fn settled(text: &str, id: ClientId) -> Result<String, Refusal> {
    let settled: ClientId =
        text.parse().map_err(|e| Refusal::new(Code::BadSettled, format!("settled is {e}")))?;
    ensure(settled < id, Code::BadSettled, || format!("settled is {settled}, which is not below id {id}"))?;
    Ok(settled.to_string())
}

/// The conversation that is written to: the one that is named, or the direct one with a user.
fn recipient(
    to: Option<Cow<'_, str>>,
    conversation: Option<Cow<'_, str>>,
    sender: &UserId,
) -> Result<ConversationId, Refusal> {
    match (to, conversation) {
        (Some(to), None) => {
            let to =
                UserId::new(&*to).map_err(|e| Refusal::new(Code::BadId, format!("to is refused: {e}")))?;
            Ok(ConversationId::direct(sender, &to))
        }
        (None, Some(text)) => {
            let conversation = ConversationId::new(&*text)
                .map_err(|e| Refusal::new(Code::BadId, format!("conversation is refused: {e}")))?;
            let (a, b) = conversation.members();
            ensure(a == *sender || b == *sender, Code::NotAMember, || {
                format!("conversation does not name {sender}")
            })?;
            Ok(conversation)
        }
        (None, None) => Err(Refusal::new(Code::BadRecipient, "neither to nor conversation is there")),
        (Some(_), Some(_)) => {
            Err(Refusal::new(Code::BadRecipient, "both to and conversation are there; leave one out"))
        }
    }
}
