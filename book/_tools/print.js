// Fit what is wider than the page, then say what is still wrong. Called once, when the maths is set.
async () => {
  const SMALLEST = 0.55; // of the ordinary size
  const faults = [];
  const name = (node) => node.closest("section[id]")?.id + ": " + node.textContent.trim().slice(0, 60);

  const shrink = (node, wanted, what = node) => {
    const size = parseFloat(getComputedStyle(node).fontSize);
    let scale = Math.min(1, wanted());
    for (let turn = 0; scale < 1 && turn < 4; turn++) {
      if (scale < SMALLEST) { faults.push("too wide " + name(what)); return; }
      node.style.fontSize = `${scale * size}px`;
      const left = wanted();
      if (left >= 1) return;
      scale *= left * 0.995;
    }
  };

  // Displayed formulas: beside their number if they can, above it if they must, smaller if that is not enough.
  for (const box of document.querySelectorAll("div.math")) {
    const formula = box.querySelector("mjx-container");
    if (!formula) { faults.push("not set " + name(box)); continue; }
    const ink = formula.querySelector("mjx-math") ?? formula;
    const number = box.querySelector(".eqno");
    const room = () => box.clientWidth - (number && !box.classList.contains("below") ? number.offsetWidth + 8 : 0);
    const needed = () => room() / Math.max(ink.getBoundingClientRect().width, formula.scrollWidth > formula.clientWidth + 1 ? formula.scrollWidth : 0);
    if (number && needed() < 0.88) box.classList.add("below");
    shrink(formula, needed, box);
  }
  for (const formula of document.querySelectorAll("span.math > mjx-container")) {
    const line = formula.closest("p, li, td, th, dd, dt, h1, h2, h3, figcaption") ?? formula.parentElement;
    shrink(formula, () => line.clientWidth / formula.getBoundingClientRect().width);
  }
  const fits = (box) => Math.min(box.clientWidth, box.parentElement.clientWidth) / Math.max(box.scrollWidth, box.offsetWidth);
  for (const box of document.querySelectorAll("pre")) if (fits(box) < SMALLEST) box.classList.add("wrapped");
  for (const box of document.querySelectorAll("table, pre")) shrink(box, () => fits(box));

  // Who cannot see a formula hears its TeX. MathJax draws with generated content, which a tagged PDF cannot describe.
  const nothing = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";
  for (const { math, typesetRoot } of MathJax.startup.document.math) {
    const described = new Image(1, 1);
    Object.assign(described, { src: nothing, alt: math.trim(), className: "described" });
    typesetRoot.setAttribute("aria-hidden", "true");
    typesetRoot.before(described);
  }

  // What fits well into a page is not cut in two.
  const keep = { pre: 170, table: 420, ".admonition": 220, ".exercise": 300, ".theorem": 400, ".aside": 120 };
  for (const [kind, height] of Object.entries(keep)) {
    for (const node of document.querySelectorAll(kind)) if (node.offsetHeight < height) node.classList.add("keep");
  }

  await Promise.all([...document.images].map((image) => image.decode().catch(() => null)));

  const edge = document.body.getBoundingClientRect().right + 1;
  for (const node of document.querySelectorAll("p, li, td, th, dt, dd, pre, img, mjx-container, code, figcaption, h1, h2, h3, h4")) {
    const box = node.getBoundingClientRect();
    if (box.width && box.right > edge) faults.push(`over the edge by ${Math.round(box.right - edge)} px ` + name(node));
  }
  for (const image of document.images) if (!image.naturalWidth) faults.push("no picture " + image.src.slice(0, 80));
  for (const node of document.querySelectorAll('mjx-merror, [data-mjx-error], mjx-container [style*="color: red"]')) {
    faults.push("TeX error " + name(node));
  }
  for (const node of document.querySelectorAll(".math:not(:has(mjx-container))")) faults.push("not set " + name(node));
  return [...new Set(faults)];
}
