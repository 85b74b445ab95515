// Opened as files, pages may not fetch one another: search then lists its results without excerpts.
if (window.location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// The theme draws an arrow that folds a chapter's pages in the sidebar, and leaves it without a name.
document.addEventListener("DOMContentLoaded", () => {
  for (const arrow of document.querySelectorAll(".bd-sidebar-primary li.has-children > details > summary")) {
    const link = arrow.closest("li").querySelector("a");
    if (!arrow.textContent.trim()) arrow.setAttribute("aria-label", `Pages below ${link.textContent.trim()}`);
  }
});
