// A device's one connection: it comes back by itself, gives each entry once, and sends each message until it is
// accepted or refused.

const ACK_WITHIN_MS = 50;
const SILENCE_MS = 20_000;
const WAIT_MS = [500, 15_000];
/** A device may have 64 ids above the highest settled one. */
const UNSETTLED_MAX = 64;

export class Socket {
  /** `token` gives a token, or throws; `on` is told `state`, `entry`, `accepted` and `refused`. */
  constructor({ token, mark, on }) {
    this.token = token;
    this.mark = mark;
    this.on = on;
    this.given = mark?.offset ?? -1;
    this.outbox = [];
    this.settled = null;
    this.last = null;
    this.losses = 0;
    this.connect();
  }

  async connect() {
    this.ended = false;
    this.on.state('away', 'connecting');
    let token;
    try {
      token = await this.token();
    } catch (error) {
      if (error.final) this.end();
      else this.lost(error.message);
      return;
    }
    if (this.ended) return;
    const url = new URL('/v1/socket', location.href);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    const socket = new WebSocket(url, ['waypost.v1', `bearer.${token}`]);
    this.socket = socket;
    this.welcomed = false;
    socket.addEventListener('open', () => {
      const hello = { type: 'hello', from: 'resume' };
      if (this.mark) Object.assign(hello, this.mark);
      this.say(hello);
      this.listen();
    });
    socket.addEventListener('message', (event) => {
      this.listen();
      try {
        this.take(JSON.parse(event.data));
      } catch (error) {
        console.error('a frame is not understood', error);
        socket.close();
      }
    });
    socket.addEventListener('close', () => {
      if (this.socket === socket) this.lost('the connection was lost');
    });
  }

  /** Asks a silent server whether it is there, and gives it up where it is not. */
  listen() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => {
      this.say({ type: 'ping' });
      this.silence = setTimeout(() => this.lost('the stack has fallen silent'), SILENCE_MS / 2);
    }, SILENCE_MS);
  }

  lost(why, seconds = 0) {
    const socket = this.socket;
    this.socket = null;
    this.welcomed = false;
    socket?.close();
    clearTimeout(this.silence);
    clearTimeout(this.acking);
    this.acking = 0;
    if (this.ended) return;
    const doubled = Math.min(WAIT_MS[1], WAIT_MS[0] * 2 ** this.losses);
    this.losses += 1;
    const wait = Math.max(doubled * (0.5 + Math.random() / 2), seconds * 1000);
    this.on.state('away', `${why}; again in ${Math.ceil(wait / 1000)} s`);
    clearTimeout(this.again);
    this.again = setTimeout(() => this.connect(), wait);
  }

  /** Leaves for good. */
  end() {
    this.ended = true;
    clearTimeout(this.again);
    clearTimeout(this.silence);
    this.acknowledge();
    this.socket?.close();
    this.socket = null;
  }

  take(frame) {
    switch (frame.type) {
      case 'welcome':
        this.welcome(frame);
        break;
      case 'entry':
        this.losses = 0;
        if (frame.offset <= this.given) break;
        this.given = frame.offset;
        this.on.entry(frame);
        this.mark = { log: this.log, offset: frame.offset };
        this.acking ||= setTimeout(() => this.acknowledge(), ACK_WITHIN_MS);
        if (frame.kind === 'system' && frame.code === 'not_taken') this.notTaken(frame.client_id);
        break;
      case 'caught_up':
        this.losses = 0;
        break;
      case 'accepted':
        if (this.answered(frame.id)) this.on.accepted(frame.id);
        break;
      case 'refused':
        this.refused(frame);
        break;
      case 'goodbye':
        if (frame.code === 'replaced') {
          this.end();
          this.on.state('replaced', 'this device is connected elsewhere');
        } else {
          this.lost(`the stack said goodbye (${frame.code})`, frame.retry_after);
        }
        break;
    }
  }

  welcome({ log, cursor, time }) {
    if ((this.log ?? log) !== log || (this.mark && this.mark.log !== log)) {
      this.mark = null;
      this.given = -1;
    }
    this.log = log;
    this.given = Math.max(this.given, cursor ?? -1);
    if (this.given >= 0) this.mark ??= { log, offset: this.given };
    this.skew = Date.parse(time) - performance.now();
    this.welcomed = true;
    for (const message of this.outbox) message.sent = false;
    this.on.state('here', 'connected');
    this.flush();
  }

  refused({ id, code, detail, retry_after }) {
    const message = this.outbox.find((message) => message.id === id);
    if (message && !message.answered && retry_after !== undefined) {
      setTimeout(() => {
        message.sent = false;
        this.flush();
      }, retry_after * 1000);
    } else if (message ? this.answered(id) : code !== 'other_log') {
      this.on.refused(id, code, detail);
    }
  }

  acknowledge() {
    clearTimeout(this.acking);
    this.acking = 0;
    if (this.mark) this.say({ type: 'ack', upto: this.mark.offset });
    this.on.acknowledged?.(this.mark);
  }

  read(upto) {
    if (this.acking) this.acknowledge();
    this.say({ type: 'read', upto });
  }

  /** Puts a message in line; what it is known by. */
  send(to, body) {
    const message = { to, body, id: null, sent: false, answered: false };
    this.outbox.push(message);
    this.flush();
    return message;
  }

  flush() {
    if (!this.welcomed) return;
    for (const message of this.outbox) {
      if (message.sent || message.answered) continue;
      if (!message.id) {
        if (this.outbox.filter((other) => other.id).length >= UNSETTLED_MAX) break;
        message.id = this.mint();
      }
      message.sent = true;
      const { id, to, body } = message;
      this.say({ type: 'send', id, ...(this.settled && { settled: this.settled }), to, body });
    }
  }

  /** An id that was not taken and is not settled was never taken: its message goes out under a new one. */
  notTaken(id) {
    const message = this.outbox.find((message) => message.id === id);
    if (!message) return;
    Object.assign(message, { id: null, sent: false, answered: false });
    this.outbox = [...this.outbox.filter((other) => other !== message), message];
    this.flush();
  }

  /** Notes an answer, and what is settled by it; `false` where it was known. */
  answered(id) {
    const message = this.outbox.find((message) => message.id === id);
    if (!message || message.answered) return false;
    message.answered = true;
    while (this.outbox[0]?.answered) this.settled = this.outbox.shift().id;
    this.flush();
    return true;
  }

  /** A UUIDv7 of the server's time, above the last. */
  mint() {
    let millis = Math.floor(this.skew + performance.now());
    if (this.last !== null) millis = Math.max(millis, this.last + 1);
    this.last = millis;
    const random = crypto.getRandomValues(new Uint8Array(10));
    random[0] = 0x70 | (random[0] & 0x0f);
    random[2] = 0x80 | (random[2] & 0x3f);
    const hex = millis.toString(16).padStart(12, '0')
      + Array.from(random, (byte) => byte.toString(16).padStart(2, '0')).join('');
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
  }

  say(frame) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(frame));
  }
}
