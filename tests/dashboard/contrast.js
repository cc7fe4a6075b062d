// Run inside the page: the text with the lowest contrast to what is behind it (WCAG 2.2, relative luminance).
const channels = (color) => color.match(/[\d.]+/g).map(Number);
const luminance = (color) => {
  const [red, green, blue] = channels(color).slice(0, 3).map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const behind = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const color = getComputedStyle(each).backgroundColor;
    if ((channels(color)[3] ?? 1) === 1) return color;
  }
  return "rgb(255, 255, 255)";
};
const contrast = (element) => {
  const [light, dark] = [luminance(getComputedStyle(element).color), luminance(behind(element))].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
};
const written = [...document.body.querySelectorAll("*")].filter((element) => [...element.childNodes].some(
  (child) => child.nodeType === Node.TEXT_NODE && child.textContent.trim() && element.checkVisibility()));
const [lowest] = written.sort((a, b) => contrast(a) - contrast(b));
return { text: lowest.textContent, contrast: contrast(lowest) };
