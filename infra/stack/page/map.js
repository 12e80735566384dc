// A map of longitude and latitude on a canvas: outlines, zones, devices. Straight lines stay straight, as zones are
// decided; a degree of longitude is as wide as it is at the middle of the view.

const METRES_PER_DEGREE = 111_195;
const SCALE_MAX = 4_000_000;
const LABELS_MAX = 60;
const FLASH_MS = 2_500;
const GRID = [30, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002];

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
/** A longitude as the one nearest to another, on either side of the antimeridian. */
const near = (lon, to) => lon - 360 * Math.round((lon - to) / 360);

export class Map2D {
  constructor(canvas, scaleBar, world, onPick) {
    this.canvas = canvas;
    this.context = canvas.getContext('2d');
    this.scaleBar = scaleBar;
    this.land = Object.values(world.land);
    this.water = Object.values(world.water);
    this.zones = [];
    this.devices = new Map();
    this.flashes = new Map();
    this.picked = null;
    this.onPick = onPick;
    this.lon = 10;
    this.lat = 20;
    this.scale = 2;
    this.touched = false;
    this.colours();
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.colours());
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.listen();
    this.resize();
  }

  colours() {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(`--${name}`).trim();
    this.colour = Object.fromEntries(
      ['sea', 'land', 'coast', 'grid', 'zone', 'accent', 'ink', 'sheet', 'quiet'].map((name) => [name, of(name)]),
    );
    this.draw();
  }

  resize() {
    const ratio = devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.canvas;
    this.width = clientWidth;
    this.height = clientHeight;
    this.canvas.width = Math.round(clientWidth * ratio);
    this.canvas.height = Math.round(clientHeight * ratio);
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (this.touched) this.draw();
    else this.fit();
  }

  /** Narrowing of longitude at the middle of the view. */
  get narrow() {
    return Math.max(0.2, Math.cos((this.lat * Math.PI) / 180));
  }

  /** Where one world is as wide as the view. */
  get scaleMin() {
    return this.width / (360 * this.narrow);
  }

  screen(lon, lat) {
    return [
      this.width / 2 + (lon - this.lon) * this.scale * this.narrow,
      this.height / 2 - (lat - this.lat) * this.scale,
    ];
  }

  move(dx, dy) {
    this.lon = near(this.lon - dx / (this.scale * this.narrow), 0);
    this.lat = clamp(this.lat + dy / this.scale, -85, 85);
    this.touched = true;
    this.draw();
  }

  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const dx = x - this.width / 2;
    const dy = y - this.height / 2;
    const lon = this.lon + dx / (this.scale * this.narrow);
    const lat = this.lat - dy / this.scale;
    this.scale = clamp(this.scale * factor, this.scaleMin, SCALE_MAX);
    this.lat = clamp(lat + dy / this.scale, -85, 85);
    this.lon = near(lon - dx / (this.scale * this.narrow), 0);
    this.touched = true;
    this.draw();
  }

  /** Shows all devices and zones near them, all zones where there is no device, or else the world. */
  fit(byHand = false) {
    const boxes = [...this.devices.values()].map(({ lon, lat }) => [lon, lat, lon, lat]);
    const zones = this.zones.map((zone) => zone.bbox).filter(Boolean);
    const all = boxes.length ? boxes : zones;
    let [west, south, east, north] = [-170, -58, 180, 80];
    if (all.length) {
      [west, south, east, north] = all.reduce(([w, s, e, n], box) => [
        Math.min(w, box[0]), Math.min(s, box[1]), Math.max(e, box[2]), Math.max(n, box[3]),
      ]);
      if (boxes.length) {
        // Zones that are not much larger than what they are near belong to the picture.
        const span = Math.max(east - west, north - south, 0.02);
        const frame = [west - span, south - span, east + span, north + span];
        const inside = (z) => z[0] >= frame[0] && z[1] >= frame[1] && z[2] <= frame[2] && z[3] <= frame[3];
        for (const zone of zones.filter(inside)) {
          [west, south] = [Math.min(west, zone[0]), Math.min(south, zone[1])];
          [east, north] = [Math.max(east, zone[2]), Math.max(north, zone[3])];
        }
      }
    }
    this.lon = (west + east) / 2;
    this.lat = clamp((south + north) / 2, -85, 85);
    const wide = (this.width * 0.8) / Math.max((east - west) * this.narrow, 0.01);
    const high = (this.height * 0.75) / Math.max(north - south, 0.01);
    this.scale = clamp(Math.min(wide, high), Math.min(this.scaleMin, high), SCALE_MAX);
    this.touched = byHand ? false : this.touched;
    this.draw();
  }

  clear() {
    this.zones = [];
    this.devices.clear();
    this.flashes.clear();
    this.picked = null;
    this.touched = false;
    this.fitted = false;
    this.draw();
  }

  setZones(zones) {
    const others = zones.length !== this.zones.length;
    this.zones = zones;
    if (others && !this.touched) this.fit();
    else this.draw();
  }

  /** Takes devices as `{device, lon, lat, at}`; an older fix never replaces a newer one. */
  setDevices(devices) {
    for (const device of devices) {
      const known = this.devices.get(device.device);
      if (!known || known.at <= device.at) this.devices.set(device.device, device);
    }
    this.changed();
  }

  changed() {
    if (this.touched) this.draw();
    else if (!this.fitted || this.outside()) this.fit();
    else this.draw();
    this.fitted = this.devices.size > 0;
  }

  /** Whether a device has left the view. */
  outside() {
    return [...this.devices.values()].some(({ lon, lat }) => {
      const [x, y] = this.screen(near(lon, this.lon), lat);
      return x < 0 || y < 0 || x > this.width || y > this.height;
    });
  }

  flash(device) {
    this.flashes.set(device, performance.now() + FLASH_MS);
    this.draw();
  }

  draw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      this.paint();
    });
  }

  paint() {
    const { context, colour } = this;
    if (!this.width || !this.height) return;
    context.fillStyle = colour.sea;
    context.fillRect(0, 0, this.width, this.height);
    context.lineJoin = 'round';
    context.lineWidth = 1;
    this.areas(this.land, colour.land, colour.coast);
    this.areas(this.water, colour.sea, colour.coast);
    this.grid();
    for (const zone of this.zones) this.zone(zone);
    this.dots();
    this.bar();
  }

  /** The copies of the world, by their distance in degrees, that the view may touch. */
  copies() {
    const half = this.width / 2 / (this.scale * this.narrow);
    return [-360, 0, 360].filter((shift) => Math.abs(this.lon - shift) <= 180 + half);
  }

  areas(rings, fill, line) {
    const { context } = this;
    context.beginPath();
    for (const shift of this.copies()) {
      for (const ring of rings) this.ring(ring, shift);
    }
    context.fillStyle = fill;
    context.fill();
    context.strokeStyle = line;
    context.stroke();
  }

  ring(ring, shift) {
    ring.forEach(([lon, lat], i) => {
      const [x, y] = this.screen(lon + shift, lat);
      if (i) this.context.lineTo(x, y);
      else this.context.moveTo(x, y);
    });
    this.context.closePath();
  }

  grid() {
    const { context } = this;
    const step = [...GRID].reverse().find((degrees) => degrees * this.scale >= 70) ?? 30;
    context.beginPath();
    const halfLon = this.width / 2 / (this.scale * this.narrow);
    const halfLat = this.height / 2 / this.scale;
    for (let i = Math.ceil((this.lon - halfLon) / step); i * step <= this.lon + halfLon; i += 1) {
      const [x] = this.screen(i * step, 0);
      context.moveTo(x, 0);
      context.lineTo(x, this.height);
    }
    for (let i = Math.ceil((this.lat - halfLat) / step); i * step <= this.lat + halfLat; i += 1) {
      if (Math.abs(i * step) > 90) continue;
      const [, y] = this.screen(0, i * step);
      context.moveTo(0, y);
      context.lineTo(this.width, y);
    }
    context.strokeStyle = this.colour.grid;
    context.stroke();
  }

  zone(zone) {
    const { context, colour } = this;
    context.beginPath();
    let label = null;
    for (const shift of this.copies()) {
      if (zone.circle) {
        const { lon, lat, radius } = zone.circle;
        const [x, y] = this.screen(lon + shift, lat);
        const high = (radius / METRES_PER_DEGREE) * this.scale;
        const wide = (high * this.narrow) / Math.max(0.01, Math.cos((lat * Math.PI) / 180));
        context.moveTo(x + wide, y);
        context.ellipse(x, y, wide, high, 0, 0, 2 * Math.PI);
        label ??= high > 8 ? [x, y - high] : null;
      } else {
        for (const ring of zone.rings) this.ring(ring, shift);
        const [x, y] = this.screen((zone.bbox[0] + zone.bbox[2]) / 2 + shift, zone.bbox[3]);
        const wide = (zone.bbox[2] - zone.bbox[0]) * this.scale * this.narrow;
        if (wide > 24 && x > 0 && x < this.width) label = [x, y];
      }
    }
    context.globalAlpha = 0.12;
    context.fillStyle = colour.zone;
    context.fill('evenodd');
    context.globalAlpha = 0.9;
    context.strokeStyle = colour.zone;
    context.stroke();
    context.globalAlpha = 1;
    if (label && this.zones.length <= LABELS_MAX) this.label(zone.id, label[0], label[1] - 5, colour.zone);
  }

  dots() {
    const { context, colour } = this;
    const now = performance.now();
    const shown = [];
    for (const device of this.devices.values()) {
      const [x, y] = this.screen(near(device.lon, this.lon), device.lat);
      if (x > -20 && y > -20 && x < this.width + 20 && y < this.height + 20) shown.push([device, x, y]);
    }
    for (const [device, x, y] of shown) {
      const until = this.flashes.get(device.device);
      if (until > now) {
        const share = (until - now) / FLASH_MS;
        context.beginPath();
        context.arc(x, y, 6 + 18 * (1 - share), 0, 2 * Math.PI);
        context.globalAlpha = share;
        context.strokeStyle = colour.zone;
        context.lineWidth = 2;
        context.stroke();
        context.lineWidth = 1;
        context.globalAlpha = 1;
        this.draw();
      } else if (until) {
        this.flashes.delete(device.device);
      }
      context.beginPath();
      context.arc(x, y, device.device === this.picked ? 7 : 5, 0, 2 * Math.PI);
      context.fillStyle = colour.accent;
      context.fill();
      context.strokeStyle = colour.sheet;
      context.lineWidth = 1.5;
      context.stroke();
      context.lineWidth = 1;
    }
    if (shown.length <= LABELS_MAX) {
      const taken = [];
      for (const [device, x, y] of shown) {
        // A label over another says nothing.
        if (taken.some(([a, b]) => Math.abs(a - x) < 70 && Math.abs(b - y) < 14)) continue;
        taken.push([x, y]);
        this.label(device.device, x, y - 9, colour.ink);
      }
    }
    this.shown = shown;
  }

  label(text, x, y, colour) {
    const { context } = this;
    context.font = '12px system-ui, sans-serif';
    context.textAlign = 'center';
    context.strokeStyle = this.colour.sheet;
    context.lineWidth = 3;
    context.globalAlpha = 0.85;
    context.strokeText(text, x, y);
    context.globalAlpha = 1;
    context.lineWidth = 1;
    context.fillStyle = colour;
    context.fillText(text, x, y);
  }

  bar() {
    const perPixel = METRES_PER_DEGREE / this.scale;
    const most = perPixel * 110;
    const ten = 10 ** Math.floor(Math.log10(most));
    const metres = [5, 2, 1].map((n) => n * ten).find((n) => n <= most) ?? ten;
    this.scaleBar.textContent = metres >= 1000 ? `${metres / 1000} km` : `${metres} m`;
    this.scaleBar.style.width = `${metres / perPixel}px`;
  }

  pick(x, y) {
    const distance = ([, a, b]) => Math.hypot(a - x, b - y);
    const nearest = (this.shown ?? []).filter((dot) => distance(dot) < 22).sort((a, b) => distance(a) - distance(b));
    this.picked = nearest[0]?.[0].device ?? null;
    this.onPick(nearest[0]?.[0] ?? null);
    this.draw();
  }

  listen() {
    const { canvas } = this;
    const pointers = new Map();
    let moved = 0;
    const at = (event) => [event.offsetX, event.offsetY];
    const spread = () => {
      const [[ax, ay], [bx, by]] = [...pointers.values()];
      return [Math.hypot(ax - bx, ay - by), (ax + bx) / 2, (ay + by) / 2];
    };
    canvas.addEventListener('pointerdown', (event) => {
      canvas.setPointerCapture(event.pointerId);
      if (!pointers.size) moved = 0;
      pointers.set(event.pointerId, at(event));
    });
    canvas.addEventListener('pointermove', (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const [x, y] = at(event);
      moved += Math.abs(x - before[0]) + Math.abs(y - before[1]);
      if (pointers.size === 2) {
        const [was] = spread();
        pointers.set(event.pointerId, [x, y]);
        const [is, cx, cy] = spread();
        if (was > 0) this.zoom(is / was, cx, cy);
        return;
      }
      pointers.set(event.pointerId, [x, y]);
      if (pointers.size === 1 && moved > 3) this.move(x - before[0], y - before[1]);
    });
    const up = (event) => {
      if (pointers.delete(event.pointerId) && event.type === 'pointerup' && moved <= 3) this.pick(...at(event));
    };
    canvas.addEventListener('pointerup', up);
    canvas.addEventListener('pointercancel', up);
    canvas.addEventListener('wheel', (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...at(event));
    }, { passive: false });
    canvas.addEventListener('keydown', (event) => {
      const moves = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
      if (moves[event.key]) this.move(...moves[event.key]);
      else if (event.key === '+' || event.key === '=') this.zoom(1.5);
      else if (event.key === '-') this.zoom(1 / 1.5);
      else if (event.key === '0') this.fit(true);
      else return;
      event.preventDefault();
    });
  }
}
