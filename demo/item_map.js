// Items on one canvas: points are stamped from one small picture for each group, which takes milliseconds for
// thousands of them, without a graphics card too. `props.crowd` and `props.marks` are what demo/map_data.py writes.
const MARGIN = 28;
const DEEPEST = 64;
const REACH = 14; // pixels from the pointer within which an item counts as meant
const MANY = 2000;
const PIXELS = { willReadFrequently: true };
const ROLES = { history: "History, oldest first", prediction: "Predictions", next: "Actually chosen next" };

const frame = element.querySelector(".item-map");
const canvas = frame.querySelector("canvas");
const ring = frame.querySelector(".ring");
const tip = frame.querySelector(".tip");
const groups = frame.querySelector(".groups");
const marked = frame.querySelector(".marked");

let crowd = { x: [], y: [], group: [], titles: [], groups: [] };
let marks = [];
let view = { x: 0.5, y: 0.5, zoom: 1 };
const hidden = new Set(); // roles, and keys of groups
let waiting = false;
let picture = null;

// Where things are

const width = () => canvas.clientWidth;
const height = () => canvas.clientHeight;
const stretchX = () => (width() - 2 * MARGIN) * view.zoom;
const stretchY = () => (height() - 2 * MARGIN) * view.zoom;
const onScreen = (x, y) => [width() / 2 + (x - view.x) * stretchX(), height() / 2 - (y - view.y) * stretchY()];
const keyOf = (group) => `group ${group.name}`;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

function move(dx, dy) {
  view.x = clamp(view.x - dx / stretchX(), 0, 1);
  view.y = clamp(view.y + dy / stretchY(), 0, 1);
  changed();
}

function zoom(factor, [x, y] = [width() / 2, height() / 2]) {
  const before = view.zoom;
  view.zoom = clamp(before * factor, 1, DEEPEST);
  // What lies under the pointer stays there.
  const part = view.zoom / before - 1;
  if (view.zoom === 1) view = { x: 0.5, y: 0.5, zoom: 1 };
  else move((width() / 2 - x) * part, (height() / 2 - y) * part);
  changed();
}

function changed() {
  // A page that shows all of the map still scrolls under a finger.
  canvas.style.touchAction = view.zoom > 1 ? "none" : "pan-y";
  point(null);
  if (!waiting) requestAnimationFrame(draw);
  waiting = true;
}

// Drawing

const SHAPES = {
  circle: (p, r) => p.arc(0, 0, r, 0, 7),
  ring: (p, r) => p.arc(0, 0, r, 0, 7),
  square: (p, r) => p.rect(-0.85 * r, -0.85 * r, 1.7 * r, 1.7 * r),
  diamond: (p, r) => polygon(p, r * 1.15, [[0, -1], [1, 0], [0, 1], [-1, 0]]),
  "triangle-up": (p, r) => polygon(p, r * 1.15, [[0, -1], [0.9, 0.7], [-0.9, 0.7]]),
  "triangle-down": (p, r) => polygon(p, r * 1.15, [[0, 1], [0.9, -0.7], [-0.9, -0.7]]),
  plus: (p, r) => [[-1, -0.35, 2, 0.7], [-0.35, -1, 0.7, 2]].forEach((bar) => p.rect(...bar.map((side) => side * r))),
  cross: (p, r) => polygon(p, r, [[-1, -0.6], [-0.6, -1], [0, -0.4], [0.6, -1], [1, -0.6], [0.4, 0], [1, 0.6], [0.6, 1], [0, 0.4], [-0.6, 1], [-1, 0.6], [-0.4, 0]]),
  star: (p, r) => polygon(p, r, Array.from({ length: 10 }, (_, i) => {
    const long = i % 2 ? 0.45 : 1;
    return [long * Math.sin((i * Math.PI) / 5), -long * Math.cos((i * Math.PI) / 5)];
  })),
};

function polygon(path, r, corners) {
  corners.forEach(([x, y], i) => (i ? path.lineTo(x * r, y * r) : path.moveTo(x * r, y * r)));
  path.closePath();
}

function shape(name, r) {
  const path = new Path2D();
  SHAPES[name](path, r);
  return path;
}

function stamp({ colour, shape: name }, radius, opacity) {
  const made = document.createElement("canvas");
  made.width = made.height = 2 * Math.ceil(radius * 1.2 + 1);
  const pen = made.getContext("2d", PIXELS);
  pen.translate(made.width / 2, made.width / 2);
  pen.globalAlpha = opacity;
  pen.fillStyle = pen.strokeStyle = colour;
  pen.lineWidth = radius / 2.5;
  if (name === "ring") pen.stroke(shape(name, radius * 0.8));
  else pen.fill(shape(name, radius));
  return made;
}

function draw() {
  waiting = false;
  if (!width()) return;
  const density = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width() * density), Math.round(height() * density)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const pen = canvas.getContext("2d", PIXELS);
  pen.setTransform(1, 0, 0, 1, 0, 0);
  canvas.dataset.drawn = drawCrowd(pen, w, h, density);
  pen.setTransform(density, 0, 0, density, 0, 0);
  drawMarks(pen);
}

/** Stamps all points, and says how many lie in view. A picture of pixels, since a canvas takes ten times as long. */
function drawCrowd(pen, w, h, density) {
  const many = crowd.x.length > MANY;
  // The closer one looks, the larger the points, so that their shapes are told apart.
  const closer = view.zoom ** 0.3;
  const radius = clamp((many ? 2.2 : 4) * closer, 2, 7) * density;
  const opacity = clamp((many ? 0.4 : 0.6) * closer, 0, 0.9);
  const stamps = crowd.groups.map((group) => (hidden.has(keyOf(group)) ? null : stamp(group, radius, opacity)));
  const side = stamps.find(Boolean)?.width ?? 0;
  // Wider than the canvas by a stamp on each side: no stamp is cut off.
  const across = w + 2 * side;
  const down = h + 2 * side;
  if (picture?.width !== across || picture.height !== down) picture = new ImageData(across, down);
  const pixels = picture.data;
  new Uint32Array(pixels.buffer).fill(ground(pen));
  const inks = stamps.map((made) => made && inkOf(made, across));
  const [sx, sy] = [stretchX() * density, stretchY() * density];
  const [left, top] = [w / 2 - view.x * sx + side / 2, h / 2 + view.y * sy + side / 2];
  let drawn = 0;
  for (let i = 0; i < crowd.x.length; i++) {
    const ink = inks[crowd.group[i]];
    const x = Math.round(left + crowd.x[i] * sx);
    const y = Math.round(top - crowd.y[i] * sy);
    if (!ink || x < 0 || y < 0 || x > w + side || y > h + side) continue;
    const corner = 4 * (y * across + x);
    for (let k = 0; k < ink.at.length; k++) {
      const at = corner + ink.at[k];
      const cover = ink.cover[k];
      pixels[at] += (ink.colour[0] - pixels[at]) * cover;
      pixels[at + 1] += (ink.colour[1] - pixels[at + 1]) * cover;
      pixels[at + 2] += (ink.colour[2] - pixels[at + 2]) * cover;
    }
    drawn++;
  }
  pen.putImageData(picture, -side, -side);
  return drawn;
}

/** The page's ground as a pixel. */
function ground(pen) {
  pen.fillStyle = getComputedStyle(frame).getPropertyValue("--llara-surface");
  pen.fillRect(0, 0, 1, 1);
  return new Uint32Array(pen.getImageData(0, 0, 1, 1).data.buffer)[0];
}

/** What a stamp puts on a picture `across` pixels wide: where, how much of it, and its colour. */
function inkOf(made, across) {
  const { data, width: side } = made.getContext("2d").getImageData(0, 0, made.width, made.height);
  const covered = Array.from({ length: side * side }, (_, i) => i).filter((i) => data[4 * i + 3]);
  const full = covered.reduce((best, i) => (data[4 * i + 3] > data[4 * best + 3] ? i : best), covered[0]);
  return {
    at: Int32Array.from(covered, (i) => 4 * (Math.floor(i / side) * across + (i % side))),
    cover: Float32Array.from(covered, (i) => data[4 * i + 3] / 255),
    colour: data.slice(4 * full, 4 * full + 3),
  };
}

function drawMarks(pen) {
  const look = getComputedStyle(frame);
  const colour = (name) => look.getPropertyValue(`--llara-${name}`).trim();
  const of = (role) => marks.filter((mark) => mark.role === role && !hidden.has(role));
  const place = (mark, path, { fill, line, size }) => {
    pen.save();
    pen.translate(...onScreen(mark.x, mark.y));
    pen.lineWidth = size;
    pen.strokeStyle = line;
    pen.stroke(path);
    if (fill) { pen.fillStyle = fill; pen.fill(path); }
    pen.restore();
  };
  const past = of("history");
  pen.lineJoin = "round";
  pen.beginPath();
  past.forEach((mark) => pen.lineTo(...onScreen(mark.x, mark.y)));
  for (const [line, size] of [["surface", 4.5], ["accent", 2]]) {
    Object.assign(pen, { strokeStyle: colour(line), lineWidth: size });
    pen.stroke();
  }
  for (const mark of past) place(mark, shape("circle", 5.5), { fill: colour("accent"), line: colour("surface"), size: 3 });
  for (const mark of of("prediction").reverse()) {
    const path = shape("star", mark.label === "1" ? 13 : 9);
    place(mark, path, { fill: colour("candidate"), line: colour("surface"), size: 3 });
  }
  for (const mark of of("next")) {
    const path = shape("circle", 15);
    place(mark, path, { line: colour("surface"), size: 6.5 });
    place(mark, path, { line: colour("next"), size: 3.5 });
  }
  Object.assign(pen, { font: `700 13px ${look.fontFamily}`, textAlign: "center", lineWidth: 4 });
  pen.strokeStyle = colour("surface");
  pen.fillStyle = colour("ink");
  for (const mark of past) {
    const [x, y] = onScreen(mark.x, mark.y);
    pen.strokeText(mark.label, x, y - 11);
    pen.fillText(mark.label, x, y - 11);
  }
}

// What an item is

function nearest([x, y]) {
  let best = REACH ** 2;
  let found = null;
  for (const mark of marks) {
    if (hidden.has(mark.role)) continue;
    const [mx, my] = onScreen(mark.x, mark.y);
    const far = (mx - x) ** 2 + (my - y) ** 2;
    if (far < best) [best, found] = [far, mark];
  }
  if (found) return found;
  const [sx, sy] = [stretchX(), stretchY()];
  const [ux, uy] = [view.x + (x - width() / 2) / sx, view.y - (y - height() / 2) / sy];
  const shown = crowd.groups.map((group) => !hidden.has(keyOf(group)));
  let at = -1;
  for (let i = 0; i < crowd.x.length; i++) {
    const far = ((crowd.x[i] - ux) * sx) ** 2 + ((crowd.y[i] - uy) * sy) ** 2;
    if (far < best && shown[crowd.group[i]]) [best, at] = [far, i];
  }
  if (at < 0) return null;
  return { x: crowd.x[at], y: crowd.y[at], title: crowd.titles[at], note: crowd.groups[crowd.group[at]].name };
}

function point(item) {
  ring.hidden = !item;
  tip.classList.toggle("shown", Boolean(item));
  if (!item) return;
  const [x, y] = onScreen(item.x, item.y);
  const title = Object.assign(document.createElement("strong"), { textContent: item.title });
  const note = Object.assign(document.createElement("span"), { textContent: item.note });
  tip.replaceChildren(title, note);
  ring.style.translate = `${x}px ${y}px`;
  tip.style.left = `${clamp(x - tip.offsetWidth / 2, 4, width() - tip.offsetWidth - 4)}px`;
  tip.style.top = `${y > tip.offsetHeight + 26 ? y - tip.offsetHeight - 18 : y + 18}px`;
}

// Below the map: what is drawn, to be switched off and on, and the marks by name, for whoever uses no pointer.

const ICONS = { history: ["accent", "circle"], prediction: ["candidate", "star"], next: ["next", "ring"] };

function describe() {
  const look = getComputedStyle(frame);
  const count = crowd.x.length.toLocaleString("en");
  canvas.setAttribute("aria-label", `Map of ${count} items; what is marked on it is listed below`);
  const roles = Object.keys(ROLES).filter((role) => marks.some((mark) => mark.role === role));
  const drawn = new Set(crowd.group);
  groups.replaceChildren(
    ...crowd.groups.filter((_, i) => drawn.has(i)).map((group) => toggle(keyOf(group), group.name, group)),
    ...roles.map((role) => {
      const [colour, shape] = ICONS[role];
      return toggle(role, ROLES[role], { colour: look.getPropertyValue(`--llara-${colour}`).trim(), shape });
    }),
  );
  marked.replaceChildren(...roles.map(listOf));
}

function toggle(key, name, picture) {
  const button = Object.assign(document.createElement("button"), { type: "button", className: "chip" });
  const icon = stamp(picture, 12, 1);
  icon.setAttribute("aria-hidden", "true");
  button.append(icon, name);
  const say = () => button.setAttribute("aria-pressed", String(!hidden.has(key)));
  button.addEventListener("click", () => {
    if (!hidden.delete(key)) hidden.add(key);
    say();
    changed();
  });
  say();
  return button;
}

function listOf(role) {
  const section = document.createElement("section");
  const list = document.createElement(role === "next" ? "ul" : "ol");
  for (const mark of marks.filter((each) => each.role === role)) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "plain" });
    button.textContent = role === "prediction" ? `${mark.title} · ${mark.note.split(", ")[1]}` : mark.title;
    for (const event of ["mouseenter", "focus", "click"]) button.addEventListener(event, () => find(mark));
    for (const event of ["mouseleave", "blur"]) button.addEventListener(event, () => point(null));
    const line = document.createElement("li");
    line.append(button);
    list.append(line);
  }
  section.append(Object.assign(document.createElement("h3"), { textContent: ROLES[role] }), list);
  return section;
}

function find(mark) {
  const [x, y] = onScreen(mark.x, mark.y);
  if (x < 0 || y < 0 || x > width() || y > height()) move(width() / 2 - x, height() / 2 - y);
  point(mark);
}

// Pointers, wheel and keys

const fingers = new Map();
const spot = (event) => [event.offsetX, event.offsetY];
const middle = (spots) => [0, 1].map((axis) => spots.reduce((sum, each) => sum + each[axis], 0) / spots.length);
const apart = ([a, b]) => (b ? Math.hypot(a[0] - b[0], a[1] - b[1]) : 1);

canvas.addEventListener("pointerdown", (event) => {
  fingers.set(event.pointerId, spot(event));
  canvas.setPointerCapture(event.pointerId);
  point(nearest(spot(event)));
});
canvas.addEventListener("pointermove", (event) => {
  if (!fingers.has(event.pointerId)) return point(nearest(spot(event)));
  const before = [...fingers.values()];
  fingers.set(event.pointerId, spot(event));
  const after = [...fingers.values()];
  const [from, to] = [middle(before), middle(after)];
  if (apart(before) !== apart(after)) zoom(apart(after) / apart(before), from);
  if (from[0] !== to[0] || from[1] !== to[1]) move(to[0] - from[0], to[1] - from[1]);
});
for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
canvas.addEventListener("pointerleave", () => fingers.size || point(null));
canvas.addEventListener("blur", () => point(null));
canvas.addEventListener("dblclick", (event) => zoom(2, spot(event)));
canvas.addEventListener("wheel", (event) => {
  // The page scrolls over a map that nobody has taken hold of; a pinch on a touchpad comes with the Control key.
  if (document.activeElement !== canvas && !event.ctrlKey) return;
  event.preventDefault();
  const pixels = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 * event.deltaY : event.deltaY;
  zoom(2 ** clamp(-pixels / (event.ctrlKey ? 60 : 240), -1, 1), spot(event));
}, { passive: false });

const STEP = 60;
const KEYS = {
  ArrowLeft: () => move(STEP, 0),
  ArrowRight: () => move(-STEP, 0),
  ArrowUp: () => move(0, STEP),
  ArrowDown: () => move(0, -STEP),
  "+": () => zoom(1.5),
  "=": () => zoom(1.5),
  "-": () => zoom(1 / 1.5),
  0: () => zoom(0),
};
canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
  // What lies in the middle is said, so that the keys alone are enough to read the map.
  point(nearest([width() / 2, height() / 2]));
});
frame.querySelector(".tools").addEventListener("click", (event) => {
  const button = event.target.closest("[data-zoom]");
  if (button) zoom(Number(button.dataset.zoom));
});

// What the server sends, the size of the page, light and dark

function unpacked(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

function readCrowd() {
  if (!props.crowd) return;
  const sent = JSON.parse(props.crowd);
  crowd = {
    ...sent,
    x: new Float32Array(unpacked(sent.x).buffer),
    y: new Float32Array(unpacked(sent.y).buffer),
    group: unpacked(sent.group),
  };
  view = { x: 0.5, y: 0.5, zoom: 1 };
}

function show() {
  frame.hidden = !props.marks;
  if (frame.hidden) return;
  marks = JSON.parse(props.marks);
  describe();
  changed();
}

readCrowd();
show();
watch("crowd", () => { readCrowd(); show(); });
watch("marks", show);
new ResizeObserver(changed).observe(canvas);
new MutationObserver(() => { describe(); changed(); }).observe(document.body, { attributeFilter: ["class"] });
