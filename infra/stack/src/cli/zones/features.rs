//! Reads the features of a GeoJSON `FeatureCollection` (RFC 7946) one by one, so that a large file need not fit in
//! memory.

use std::{cell::RefCell, fmt, io::Read};

use anyhow::Context as _;
use serde::{
    Deserialize, Deserializer as _,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value, json};

/// A feature as it stands in the file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(in crate::cli) struct Feature {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    properties: Value,
    #[serde(default)]
    geometry: Value,
}

impl Feature {
    /// Its id: the property of a name where one is given, its own `id` otherwise.
    pub(in crate::cli) fn id(&self, property: Option<&str>) -> Result<String, String> {
        let (value, where_from) = match property {
            Some(name) => (&self.properties[name], format!("property {name:?}")),
            None => (&self.id, "id (name a property to take it from with --id-property)".to_owned()),
        };
        match value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            Value::Null => Err(format!("the feature has no {where_from}")),
            _ => Err(format!("the feature's {where_from} is neither text nor number")),
        }
    }

    /// What the stack is given: the geometry, and a circle's radius. Other properties stay here.
    pub(in crate::cli) fn zone(self) -> Value {
        let radius = &self.properties["radius_m"];
        let properties = if radius.is_null() { json!({}) } else { json!({ "radius_m": radius }) };
        json!({ "type": "Feature", "geometry": self.geometry, "properties": properties })
    }
}

/// Reads a `FeatureCollection` to its end, and hands over each feature, or why it is none; stops early where `each`
/// answers `false`.
pub(in crate::cli) fn read(
    from: impl Read,
    each: impl FnMut(Result<Feature, String>) -> bool,
) -> anyhow::Result<()> {
    let each = RefCell::new(each);
    let stopped = RefCell::new(false);
    let collection = Collection(&|feature| {
        let goes_on = (each.borrow_mut())(feature);
        *stopped.borrow_mut() = !goes_on;
        goes_on
    });
    let mut reader = serde_json::Deserializer::from_reader(std::io::BufReader::new(from));
    let read = reader.deserialize_map(collection).and_then(|()| reader.end());
    if *stopped.borrow() { Ok(()) } else { read.context("this is not a GeoJSON FeatureCollection") }
}

type Each<'a> = &'a dyn Fn(Result<Feature, String>) -> bool;

struct Collection<'a>(Each<'a>);

impl<'de> Visitor<'de> for Collection<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a FeatureCollection")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut found = false;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "type" => {
                    let kind: Value = map.next_value()?;
                    if kind != "FeatureCollection" {
                        return Err(A::Error::custom(format_args!("its type is {kind}")));
                    }
                }
                "features" => {
                    found = true;
                    map.next_value_seed(Features(self.0))?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if found { Ok(()) } else { Err(A::Error::missing_field("features")) }
    }
}

struct Features<'a>(Each<'a>);

impl<'de> DeserializeSeed<'de> for Features<'_> {
    type Value = ();
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Features<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of features")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        // As any value first: what is JSON but no feature costs itself alone.
        while let Some(value) = list.next_element::<Value>()? {
            if !(self.0)(Feature::deserialize(value).map_err(|e| format!("this is no feature: {e}"))) {
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str, property: Option<&str>) -> (Vec<Result<String, String>>, Option<String>) {
        let mut found = vec![];
        let read = read(text.as_bytes(), |feature| {
            found.push(feature.and_then(|f| f.id(property)));
            true
        });
        (found, read.err().map(|e| format!("{e:#}")))
    }

    #[test]
    fn features_are_named_by_their_id_or_a_property() {
        let text = r#"{"features":[
            {"type":"Feature","id":"A","properties":{"name":"Alpha"},"geometry":null},
            {"type":"Feature","id":7,"properties":null},
            {"type":"Feature","properties":{"name":[]}},
            3
        ],"type":"FeatureCollection","bbox":[1,2]}"#;
        let (found, error) = ids(text, None);
        assert_eq!(error, None);
        assert_eq!(found[..2], [Ok("A".to_owned()), Ok("7".to_owned())]);
        assert!(found[2].as_ref().unwrap_err().starts_with("the feature has no id"));
        assert!(found[3].as_ref().unwrap_err().starts_with("this is no feature"));
        let (found, _) = ids(text, Some("name"));
        assert_eq!(found[0], Ok("Alpha".to_owned()));
        assert_eq!(found[1], Err("the feature has no property \"name\"".to_owned()));
        assert_eq!(found[2], Err("the feature's property \"name\" is neither text nor number".to_owned()));
    }

    #[test]
    fn what_is_no_collection_is_said_to_be_none() {
        for (text, why) in [
            ("", "EOF"),
            ("[]", "expected a FeatureCollection"),
            ("{}", "missing field `features`"),
            (r#"{"type":"Polygon","coordinates":[]}"#, "its type is \"Polygon\""),
            (r#"{"type":"FeatureCollection","features":[{}"#, "EOF"),
            (r#"{"type":"FeatureCollection","features":[]} x"#, "trailing characters"),
        ] {
            let error = ids(text, None).1.unwrap();
            assert!(
                error.contains("this is not a GeoJSON FeatureCollection") && error.contains(why),
                "{error}"
            );
        }
    }

    #[test]
    fn only_the_geometry_and_a_radius_go_to_the_stack() {
        let zone = |text: &str| serde_json::from_str::<Feature>(text).unwrap().zone();
        assert_eq!(
            zone(r#"{"id":"x","properties":{"radius_m":150,"owner":"o"},"geometry":{"type":"Point"}}"#),
            json!({"type":"Feature","geometry":{"type":"Point"},"properties":{"radius_m":150}})
        );
        assert_eq!(zone(r#"{"geometry":null}"#), json!({"type":"Feature","geometry":null,"properties":{}}));
    }
}
