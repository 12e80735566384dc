// The page of a stack: who looks, where devices are, and what arrives in an inbox. Everything comes from the stack's
// own routes; the token stays in this tab.

import { Map2D } from '/page/map.js';
import { Socket } from '/page/socket.js';

const DEVICE = 'page';
const POSITIONS_EVERY_MS = 2_000;
const ZONES_EVERY_MS = 20_000;
const DEVICE_PAGES_MAX = 5;
const ZONE_VERTICES_MAX = 20_000;
const VERTICES_MAX = 300_000;
const STREAM_MAX = 300;
const KEPT_MAX = 200;

const $ = (id) => document.getElementById(id);
const kept = {
  get: (name) => JSON.parse(sessionStorage.getItem(`waypost.${name}`) ?? 'null'),
  set: (name, value) => {
    try {
      sessionStorage.setItem(`waypost.${name}`, JSON.stringify(value));
    } catch {
      // Full, or not allowed: what is kept here is for convenience.
    }
  },
};

let session = null;
let map = null;

/** A refusal of the stack, with its status and code. */
class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `the stack answers ${status}`);
    this.status = status;
    this.code = problem.code;
    this.final = status >= 400 && status < 500 && status !== 408 && status !== 429;
  }
}

async function ask(token, path, options = {}) {
  const headers = { authorization: `Bearer ${token}`, ...(options.body && { 'content-type': 'application/json' }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(15_000) });
  } catch {
    throw new Error('the stack does not answer');
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, body);
  return body;
}

/** What a token says of itself; the stack alone decides whether it is true. */
function claims(token) {
  try {
    const part = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
    return JSON.parse(atob(part));
  } catch {
    return null;
  }
}

const written = (user, device) => (user === device ? user : `${user}/${device}`);

class Session {
  constructor(token, inbox) {
    this.token = token;
    const { sub, dev, role, exp } = claims(token);
    this.operator = role === 'operator';
    this.user = this.operator ? inbox || sub : sub;
    this.device = this.operator ? DEVICE : dev ?? sub;
    this.expires = exp * 1000;
    this.entries = [];
    this.receipts = {};
    this.zoneCache = new Map();
    this.timers = [];
    this.unread = new Map();
    /** What was said here and has not come back as an entry: the message and its item. */
    this.waiting = [];
  }

  get name() {
    return written(this.user, this.device);
  }

  /** The token of the device whose inbox is shown; an operator mints one. */
  async deviceToken() {
    if (!this.operator) return this.token;
    const body = JSON.stringify({ user: this.user, device: this.device, role: 'device' });
    try {
      return (await ask(this.token, '/v1/tokens', { method: 'POST', body })).token;
    } catch (error) {
      if (error.final) leave(error.message);
      throw error;
    }
  }

  async start() {
    // A token that is no good is told at the door.
    await this.positions();
    $('who').textContent = this.operator ? `${this.user}’s inbox, as operator` : this.name;
    if (!map) {
      const world = await (await fetch('/page/world.json')).json();
      map = new Map2D($('map'), $('scale').firstElementChild, world, (device) => session?.tell(device));
    }
    map.clear();
    map.setDevices(this.first);
    this.told();
    const before = kept.get(`entries.${this.name}`);
    this.entries = before?.entries ?? [];
    this.entries.forEach((entry) => this.show(entry));
    this.socket = new Socket({
      token: () => this.deviceToken(),
      mark: before?.mark ?? null,
      on: {
        state: (state, text) => this.state(state, text),
        entry: (entry) => this.entry(entry),
        accepted: (id) => this.mark(id, '✓'),
        refused: (id, code, detail) => this.refused(id, code, detail),
        acknowledged: () => this.keep(),
      },
    });
    this.repeat(POSITIONS_EVERY_MS, async () => {
      await this.positions();
      map.setDevices(this.first);
      this.told();
    });
    if (this.operator) this.repeat(ZONES_EVERY_MS, () => this.zones(), true);
  }

  stop() {
    this.socket?.end();
    this.timers.forEach(clearInterval);
    this.ended = true;
  }

  repeat(every, work, atOnce = false) {
    let busy = false;
    const run = async () => {
      if (busy || this.ended || document.hidden) return;
      busy = true;
      try {
        await work();
      } catch (error) {
        if (error.status === 401) leave(error.message);
      } finally {
        busy = false;
      }
    };
    this.timers.push(setInterval(run, every));
    if (atOnce) run();
  }

  async positions() {
    if (!this.operator) {
      try {
        this.first = [point(await ask(this.token, `/v1/devices/${encodeURIComponent(this.name)}/position`))];
      } catch (error) {
        if (error.code !== 'not_found') throw error;
        this.first = [];
      }
      return;
    }
    const all = [];
    let after = '';
    for (let page = 0; page < DEVICE_PAGES_MAX; page += 1) {
      const { devices, next } = await ask(this.token, `/v1/devices?limit=10000${after}`);
      all.push(...devices.map(point));
      if (!next) break;
      after = `&after=${encodeURIComponent(next)}`;
    }
    this.first = all;
  }

  async zones() {
    const { zones } = await ask(this.token, '/v1/zones');
    let vertices = 0;
    const shown = [];
    for (const zone of zones) {
      const small = zone.vertices <= ZONE_VERTICES_MAX && vertices + zone.vertices <= VERTICES_MAX;
      if (small) vertices += zone.vertices;
      shown.push(small ? await this.zone(zone) : outline(zone));
      // Many zones take a while: the first are shown meanwhile.
      if (shown.length % 20 === 0) map.setZones(shown.slice());
    }
    this.zoneCount = zones.length;
    map.setZones(shown);
    this.told();
  }

  async zone(zone) {
    const known = this.zoneCache.get(zone.id);
    if (known?.version === zone.version) return known.shape;
    try {
      const { geometry, properties } = await ask(this.token, `/v1/zones/${encodeURIComponent(zone.id)}`);
      const shape = { id: zone.id, bbox: box(zone), ...drawn(geometry, properties) };
      this.zoneCache.set(zone.id, { version: zone.version, shape });
      return shape;
    } catch {
      return outline(zone);
    }
  }

  told() {
    if (map.picked) return this.tell(map.devices.get(map.picked));
    const count = (n, one, many) => `${n.toLocaleString()} ${n === 1 ? one : many}`;
    const devices = count(map.devices.size, 'device', 'devices');
    $('told').textContent = this.operator ? `${devices}, ${count(this.zoneCount ?? 0, 'zone', 'zones')}` : devices;
  }

  tell(device) {
    if (!device) return this.told();
    const place = `${device.lat.toFixed(5)}, ${device.lon.toFixed(5)}`;
    $('told').textContent = `${device.device}: ${place}, ${moment(device.at)}`;
  }

  state(state, text) {
    $('state').className = state;
    $('state').textContent = text;
    if (state === 'replaced') {
      const back = document.createElement('button');
      back.type = 'button';
      back.textContent = 'Use here';
      back.addEventListener('click', () => this.socket.connect());
      $('state').append(' ', back);
    }
  }

  entry(entry) {
    this.entries.push(entry);
    if (this.entries.length > KEPT_MAX) this.entries.shift();
    this.show(entry);
    if (entry.kind === 'match' && entry.fix) {
      map.setDevices([point({ device: entry.device, ...entry.fix })]);
      map.flash(entry.device);
    }
    if (entry.kind === 'message' && entry.sender !== this.user) {
      this.unread.set(entry.conversation, entry.offset);
      // After this entry is acknowledged: what is read was delivered.
      queueMicrotask(() => this.read());
    }
  }

  /** Says that what is seen is read. */
  read() {
    if (document.hidden) return;
    for (const upto of this.unread.values()) this.socket.read(upto);
    this.unread.clear();
  }

  keep() {
    kept.set(`entries.${this.name}`, { entries: this.entries, mark: this.socket.mark });
  }

  show(entry) {
    if (entry.kind === 'delivered' || entry.kind === 'read') return this.receipt(entry);
    const item = document.createElement('li');
    item.classList.add(entry.kind);
    const body = {
      message: () => (entry.base64 ? `(${entry.content_type})` : entry.body),
      match: () => `${entry.device} ${entry.event} ${entry.zone ?? ''}${entry.initial ? ' (first seen there)' : ''}`,
      system: () => `${entry.code}: ${entry.detail}`,
    }[entry.kind];
    let from = { match: `rule ${entry.rule}`, system: 'Waypost' }[entry.kind];
    if (entry.kind === 'message') {
      const mine = entry.sender === this.user;
      from = mine ? `to ${other(entry.conversation, this.user)}` : `from ${entry.sender}`;
      if (mine) {
        item.classList.add('mine');
        item.dataset.conversation = entry.conversation;
        item.dataset.number = entry.number;
      }
      this.item(entry.client_id)?.remove();
      this.waiting = this.waiting.filter(({ message }) => message.id !== entry.client_id);
    }
    fill(item, from, moment(entry.at), body ? body() : JSON.stringify(entry));
    append(item);
    if (item.dataset.number) this.marks(entry.conversation);
  }

  receipt({ kind, conversation, user, upto, at }) {
    const receipts = this.receiptsOf(conversation);
    receipts[kind] = Math.max(receipts[kind], upto);
    this.marks(conversation);
    const item = document.createElement('li');
    item.classList.add('receipt');
    const said = kind === 'read' ? 'has read what you wrote' : 'has what you wrote';
    item.textContent = `${user} ${said} · ${moment(at)}`;
    append(item);
  }

  receiptsOf(conversation) {
    return (this.receipts[conversation] ??= { delivered: -1, read: -1 });
  }

  /** Shows how far what was written has come. */
  marks(conversation) {
    const { delivered, read } = this.receiptsOf(conversation);
    for (const item of $('stream').querySelectorAll(`[data-conversation="${CSS.escape(conversation)}"]`)) {
      const number = Number(item.dataset.number);
      const mark = number <= read ? 'VV' : number <= delivered ? 'V' : '✓';
      item.querySelector('.mark').textContent = mark;
      item.querySelector('.mark').title = { VV: 'read', V: 'delivered', '✓': 'in the log' }[mark];
    }
  }

  say(to, body) {
    const message = this.socket.send(to, body);
    const item = document.createElement('li');
    item.classList.add('message', 'mine');
    fill(item, `to ${to}`, 'now', body);
    item.querySelector('.mark').textContent = '…';
    append(item);
    this.waiting.push({ message, item });
  }

  /** The item of what was said here; a message has its id once it was sent. */
  item(id) {
    return this.waiting.find(({ message }) => message.id === id)?.item;
  }

  mark(id, mark) {
    const item = this.item(id);
    if (item) item.querySelector('.mark').textContent = mark;
  }

  refused(id, code, detail) {
    let item = id && this.item(id);
    if (!item) {
      item = document.createElement('li');
      fill(item, 'refused', moment(Date.now()), '');
      append(item);
    }
    item.classList.add('refused');
    item.querySelector('.mark').textContent = 'refused';
    item.querySelector('.body').textContent += ` (${code}: ${detail})`;
  }
}

const point = ({ device, lon, lat, at }) => ({ device, lon, lat, at: Date.parse(at) });
const other = (conversation, user) => {
  const [a, b] = conversation.split('~');
  return a === user ? b : a;
};
const box = ({ bbox }) => (Array.isArray(bbox) ? bbox : null);

/** A geometry as rings or a circle. */
function drawn(geometry, properties) {
  if (geometry.type === 'Point') {
    const [lon, lat] = geometry.coordinates;
    return { circle: { lon, lat, radius: properties?.radius_m ?? 0 }, rings: [] };
  }
  const polygons = geometry.type === 'Polygon' ? [geometry.coordinates] : geometry.coordinates;
  return { rings: polygons.flat() };
}

/** A zone that is too large to draw, as its box. */
function outline(zone) {
  const bbox = box(zone);
  if (!bbox) return { id: zone.id, bbox: [0, 0, 0, 0], rings: [] };
  const [w, s, e, n] = bbox;
  return { id: zone.id, bbox, rings: [[[w, s], [e, s], [e, n], [w, n]]] };
}

function moment(at) {
  const date = new Date(at);
  const today = date.toDateString() === new Date().toDateString();
  return today ? date.toLocaleTimeString() : date.toLocaleString();
}

function fill(item, from, at, text) {
  const head = document.createElement('div');
  head.className = 'head';
  const [who, when, mark] = ['span', 'span', 'span'].map((name) => document.createElement(name));
  who.textContent = from;
  when.textContent = ` ${at}`;
  mark.className = 'mark';
  when.prepend(mark);
  head.append(who, when);
  const body = document.createElement('div');
  body.className = 'body';
  body.textContent = text;
  item.append(head, body);
}

function append(item) {
  const stream = $('stream');
  const atEnd = stream.scrollHeight - stream.scrollTop - stream.clientHeight < 60;
  stream.append(item);
  while (stream.children.length > STREAM_MAX) stream.firstElementChild.remove();
  $('empty').hidden = true;
  if (atEnd) stream.scrollTop = stream.scrollHeight;
}

async function enter(token, inbox) {
  const said = claims(token);
  if (!said?.sub) return leave('This is no token: a token has three parts with dots between them.');
  if (said.exp * 1000 < Date.now()) return leave('This token has expired: make a new one.');
  const entered = new Session(token, inbox);
  $('door').hidden = true;
  $('room').hidden = false;
  $('leave').hidden = false;
  try {
    session = entered;
    await entered.start();
    kept.set('token', token);
    kept.set('inbox', inbox);
  } catch (error) {
    if (session === entered) leave(error.message);
  }
}

function leave(why = '') {
  session?.stop();
  session = null;
  sessionStorage.clear();
  $('stream').replaceChildren();
  $('empty').hidden = false;
  $('who').textContent = '';
  $('state').textContent = '';
  $('state').className = '';
  $('told').textContent = '';
  $('refusal').textContent = why;
  $('door').hidden = false;
  $('room').hidden = true;
  $('leave').hidden = true;
  $('token').value = '';
  $('token').focus();
}

$('sign-in').addEventListener('submit', (event) => {
  event.preventDefault();
  $('refusal').textContent = '';
  enter($('token').value.trim(), $('inbox').value.trim());
});
$('leave').addEventListener('click', () => leave());
$('say').addEventListener('submit', (event) => {
  event.preventDefault();
  session?.say($('to').value.trim(), $('text').value);
  $('text').value = '';
  $('text').focus();
});
$('zoom').addEventListener('click', ({ target }) => {
  const { zoom } = target.dataset;
  if (zoom === 'all') map?.fit(true);
  else if (zoom) map?.zoom(zoom === 'in' ? 2 : 0.5);
});
document.addEventListener('visibilitychange', () => session?.read());

if (kept.get('token')) enter(kept.get('token'), kept.get('inbox') ?? '');
